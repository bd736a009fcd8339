"""Keys and values: what goes into and what comes out of the edited layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from unierase.editing.prompts import EditPrompt
from unierase.models.layers import decoder_layers, down_projection, recorded_inputs
from unierase.scoring.batching import batches_by_length, left_pad

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


@torch.no_grad()
def activations_at_edit(
    lm: LanguageModel,
    prompts: Sequence[EditPrompt],
    key_layers: Sequence[int],
    value_layer: int | None,
    facts: int,
    batch_tokens: int = 8192,
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Keys of ``key_layers`` and hidden states after ``value_layer``, at the edit position.

    Keys are averaged over the contexts of a fact by their weights: one (d_k, facts) tensor per
    layer. The hidden states, (d_h, facts), are those of a fact's bare prompt, its first. Both in
    float32 on the CPU. One forward pass over the tokens up to the edit position gives all.
    """
    modules = [down_projection(lm.model, layer) for layer in key_layers]
    if value_layer is not None:
        # Output of layer l = input of layer l + 1, or of the final norm after the last layer.
        layers = decoder_layers(lm.model)
        last = value_layer + 1 == len(layers)
        modules.append(lm.model.get_decoder().norm if last else layers[value_layer + 1])
    keys = [torch.zeros(m.in_features, facts) for m in modules[: len(key_layers)]]
    values: torch.Tensor | None = None
    seen: set[int] = set()
    bare = [prompt.fact not in seen and not seen.add(prompt.fact) for prompt in prompts]  # type: ignore[func-returns-value]
    for batch in batches_by_length([p.position + 1 for p in prompts], batch_tokens):
        rows = [prompts[i].ids[: prompts[i].position + 1] for i in batch]
        with recorded_inputs(modules) as recorded:
            lm.model(**left_pad(rows, lm.pad_id, lm.device), use_cache=False, logits_to_keep=1)
        at_edit = [states[:, -1].float().cpu() for states in recorded]
        for n, i in enumerate(batch):
            prompt = prompts[i]
            for layer_keys, states in zip(keys, at_edit, strict=False):
                layer_keys[:, prompt.fact] += prompt.weight * states[n]
            if value_layer is not None and bare[i]:
                if values is None:
                    values = torch.zeros(at_edit[-1].shape[1], facts)
                values[:, prompt.fact] = at_edit[-1][n]
    return keys, values


@torch.no_grad()
def key_covariances(
    lm: LanguageModel,
    sequences: Sequence[tuple[int, ...]],
    layers: Sequence[int],
    batch_tokens: int = 8192,
) -> list[torch.Tensor]:
    """C0 = E[k k^T] over all tokens of ``sequences``, one (d_k, d_k) float32 tensor per layer."""
    modules = [down_projection(lm.model, layer) for layer in layers]
    sums = [torch.zeros(m.in_features, m.in_features, device=lm.device) for m in modules]
    tokens = 0
    for batch in batches_by_length([len(ids) for ids in sequences], batch_tokens):
        inputs = left_pad([sequences[i] for i in batch], lm.pad_id, lm.device)
        with recorded_inputs(modules) as recorded:
            lm.model(**inputs, use_cache=False, logits_to_keep=1)
        real = inputs["attention_mask"].bool()
        tokens += int(real.sum())
        for total, states in zip(sums, recorded, strict=True):
            keys = states[real].float()
            total.addmm_(keys.T, keys)
    return [(total / max(tokens, 1)).cpu() for total in sums]
