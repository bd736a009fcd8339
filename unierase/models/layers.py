"""Where things are in a model: decoder layers and the projections that an edit changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from unierase.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The model's decoder layers, first to last."""
    layers = getattr(model.get_decoder(), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise UserError(
            f"method=unierase: no decoder layers found in {type(model).__name__}; models built "
            "like Llama (Llama, Qwen2, Gemma, Phi-3) can be edited"
        )
    return layers


def down_projection(model: PreTrainedModel, layer: int) -> nn.Linear:
    """The MLP's output projection of a layer; its weight is (d_h, d_k)."""
    projection = getattr(getattr(decoder_layers(model)[layer], "mlp", None), "down_proj", None)
    if not isinstance(projection, nn.Linear):
        raise UserError(
            f"method=unierase: layer {layer} of {type(model).__name__} has no mlp.down_proj "
            "(mixture-of-experts layers can't be edited)"
        )
    return projection


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


@contextmanager
def recorded_inputs(modules: Sequence[nn.Module]) -> Iterator[list[torch.Tensor]]:
    """Inputs of ``modules`` in the last forward pass, in the order of ``modules``."""
    recorded: list[torch.Tensor] = [torch.empty(0)] * len(modules)

    def hook(index: int):  # type: ignore[no-untyped-def]
        def record(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            recorded[index] = inputs[0]

        return record

    handles = [m.register_forward_pre_hook(hook(i)) for i, m in enumerate(modules)]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def changed_output(module: nn.Module, change) -> Iterator[None]:  # type: ignore[no-untyped-def]
    """Within the context the module's output hidden states h become ``change(h)``."""

    def hook(module: nn.Module, inputs: object, output: object) -> object:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


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
