"""Where things are in a model: decoder layers and the projections that an edit changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from unierase.errors import UserError

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The model's decoder layers, first to last, found by their number."""
    decoder, count = model.get_decoder(), model.config.get_text_config().num_hidden_layers
    lists = [child for child in decoder.children() if isinstance(child, nn.ModuleList)]
    found = [layers for layers in lists if len(layers) == count]
    if len(found) != 1:
        raise UserError(
            f"method=unierase: no list of {count} decoder layers found in {type(model).__name__}; "
            "decoders like Llama, Qwen2, Gemma, Phi-3, GPT-2 and GPT-NeoX can be edited"
        )
    return found[0]


def down_projection(model: PreTrainedModel, layer: int) -> nn.Linear | Conv1D:
    """The MLP's output projection of a layer: the last one that ends in the hidden size."""
    hidden = model.config.get_text_config().hidden_size
    mlp = getattr(decoder_layers(model)[layer], "mlp", None)
    if (
        mlp is None
        or any(isinstance(child, nn.ModuleList) for child in mlp.children())
        or (hasattr(mlp, "experts"))
    ):
        raise UserError(
            f"method=unierase: layer {layer} of {type(model).__name__} has no plain MLP; "
            "mixture-of-experts layers can't be edited"
        )
    projections = [
        module
        for module in mlp.modules()
        if isinstance(module, (nn.Linear, Conv1D)) and oriented(module).shape[0] == hidden
    ]
    if not projections:
        raise UserError(
            f"method=unierase: the MLP of layer {layer} of {type(model).__name__} has no "
            f"projection to the hidden size {hidden}"
        )
    return projections[-1]


def oriented(projection: nn.Linear | Conv1D) -> torch.Tensor:
    """The weight as (d_h, d_k), a view on it: GPT-2's Conv1D holds it the other way round."""
    weight = projection.weight
    return weight.T if isinstance(projection, Conv1D) else weight


def checked_layers(model: PreTrainedModel, layers: Sequence[int]) -> tuple[int, ...]:
    """``layers`` in ascending order, or a UserError for one that the model does not have."""
    count = len(decoder_layers(model))
    if not layers:
        raise UserError(f"method.layers=[]: name at least one layer of 0..{count - 1}")
    for layer in layers:
        if not 0 <= layer < count:
            raise UserError(
                f"method.layers: {layer} is out of range; this model has 0..{count - 1}"
            )
    # The value optimisation needs a layer above the edited ones to carry the change.
    return tuple(sorted(set(layers)))


class _Enough(Exception):
    """Ends a forward pass whose remaining layers nobody needs."""


@torch.no_grad()
def activations(
    model: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    key_layers: Sequence[int],
    value_layer: int | None = None,
    cache: DynamicCache | None = None,
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Inputs of the down-projections of ``key_layers``, each (rows, length, d_k), and the hidden
    states after ``value_layer``, (rows, length, d_h). Layers above the last of them do not run.

    cache: attention keys and values of what stands in front of ``inputs``.
    """
    layers = decoder_layers(model)
    keys: dict[int, torch.Tensor] = {}
    values: list[torch.Tensor] = []
    last = max([*key_layers, *([] if value_layer is None else [value_layer])])

    def record_key(layer: int):  # type: ignore[no-untyped-def]
        def record(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            keys[layer] = args[0]

        return record

    def record_value(module: nn.Module, args: object, output: object) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        assert isinstance(hidden, torch.Tensor)
        values.append(hidden)

    def stop(module: nn.Module, args: object, output: object) -> None:
        raise _Enough

    handles = [
        down_projection(model, layer).register_forward_pre_hook(record_key(layer))
        for layer in key_layers
    ]
    if value_layer is not None:
        handles.append(layers[value_layer].register_forward_hook(record_value))
    handles.append(layers[last].register_forward_hook(stop))
    try:
        model(**inputs, past_key_values=cache, use_cache=cache is not None)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return [keys[layer] for layer in key_layers], values[0] if values else None


def hidden_states(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], layer: int
) -> torch.Tensor:
    """Hidden states after ``layer``, (rows, length, d_h), with gradient; none above is run."""
    found: list[torch.Tensor] = []

    def record(module: nn.Module, args: object, output: object) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        assert isinstance(hidden, torch.Tensor)
        found.append(hidden)
        raise _Enough

    handle = decoder_layers(model)[layer].register_forward_hook(record)
    try:
        model(**inputs, use_cache=False)
    except _Enough:
        pass
    finally:
        handle.remove()
    return found[0]


@contextmanager
def replaced_outputs(outputs: Mapping[nn.Module, object]) -> Iterator[None]:
    """Within the context each module does nothing and puts out what it is mapped to."""

    def forward_of(output: object):  # type: ignore[no-untyped-def]
        def forward(*args: object, **kwargs: object) -> object:
            return output

        return forward

    for module, output in outputs.items():
        # An attribute of the object goes before the method of its class.
        module.forward = forward_of(output)
    try:
        yield
    finally:
        for module in outputs:
            del module.forward


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No parameter of ``model`` asks for a gradient within the context."""
    asked = [p for p in model.parameters() if p.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)
