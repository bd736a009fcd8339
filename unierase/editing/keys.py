"""Keys and values: what goes into and what comes out of the edited layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from unierase.editing.prompts import EditPrompt
from unierase.models.layers import activations, down_projection, oriented
from unierase.scoring.batching import batches_by_length, left_pad
from unierase.scoring.prefix import batches_by_beginning

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


BATCH_TOKENS = 8192
"""Rows x tokens of one forward pass over prompts or passages."""


@torch.no_grad()
def activations_at_edit(
    lm: LanguageModel,
    prompts: Sequence[EditPrompt],
    key_layers: Sequence[int],
    value_layer: int | None,
    facts: int,
    batch_tokens: int = BATCH_TOKENS,
) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Keys of ``key_layers`` and hidden states after ``value_layer``, at the edit position.

    Keys are averaged over the contexts of a fact by their weights: one (d_k, facts) tensor per
    layer. The hidden states, (d_h, facts), are those of a fact's bare prompt, its first. Both in
    float32 on the CPU. The tokens up to the edit position are run once for all of these.
    """
    keys = [torch.zeros(_key_size(lm, layer), facts) for layer in key_layers]
    size = lm.model.config.get_text_config().hidden_size
    values = None if value_layer is None else torch.zeros(size, facts)
    # What stands behind the edit position changes nothing: prompts that differ there are read once.
    shares: dict[tuple[int, tuple[int, ...]], float] = {}
    for prompt in prompts:
        read = prompt.fact, prompt.ids[: prompt.position + 1]
        shares[read] = shares.get(read, 0.0) + prompt.weight
    reads = [(fact, ids, weight) for (fact, ids), weight in shares.items()]
    bare: dict[int, int] = {}
    for i, (fact, _, _) in enumerate(reads):
        bare.setdefault(fact, i)
    tokens = [ids for _, ids, _ in reads]
    for shared, before, batch in batches_by_beginning(lm, tokens, batch_tokens):
        inputs = left_pad([tokens[i][shared:] for i in batch], lm.pad_id, lm.device)
        cache = None
        if before is not None:
            inputs, cache = before.followed_by(inputs)
        found, hidden = activations(lm.model, inputs, key_layers, value_layer, cache)
        at_edit = [states[:, -1].float().cpu() for states in found]
        after = hidden[:, -1].float().cpu() if hidden is not None else None
        for n, i in enumerate(batch):
            fact, _, weight = reads[i]
            for layer_keys, states in zip(keys, at_edit, strict=True):
                layer_keys[:, fact] += weight * states[n]
            if values is not None and after is not None and bare[fact] == i:
                values[:, fact] = after[n]
    return keys, values


def _key_size(lm: LanguageModel, layer: int) -> int:
    return oriented(down_projection(lm.model, layer)).shape[1]


@torch.no_grad()
def key_covariances(
    lm: LanguageModel,
    sequences: Sequence[tuple[int, ...]],
    layers: Sequence[int],
    batch_tokens: int = BATCH_TOKENS,
) -> list[torch.Tensor]:
    """C0 = E[k k^T] over all tokens of ``sequences``, one (d_k, d_k) float32 tensor per layer."""
    sizes = [_key_size(lm, layer) for layer in layers]
    sums = [torch.zeros(size, size, device=lm.device) for size in sizes]
    tokens = 0
    for batch in batches_by_length([len(ids) for ids in sequences], batch_tokens):
        inputs = left_pad([sequences[i] for i in batch], lm.pad_id, lm.device)
        recorded, _ = activations(lm.model, inputs, layers)
        real = inputs["attention_mask"].bool()
        tokens += int(real.sum())
        for total, states in zip(sums, recorded, strict=True):
            keys = states[real].float()
            total.addmm_(keys.T, keys)
    return [(total / max(tokens, 1)).cpu() for total in sums]
