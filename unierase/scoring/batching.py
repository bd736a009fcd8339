"""Batches of similar length, padded on the left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, each at most ``batch_tokens`` padded.

    Longest first, so that a batch too large for the memory fails at once. A row longer than
    ``batch_tokens`` makes a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def left_pad(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Tensors for a forward pass: input_ids, attention_mask, position_ids, each (rows, longest)."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, longest - len(row) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: tensor.to(device) for name, tensor in inputs.items()}


@torch.no_grad()
def embedded(
    model: PreTrainedModel,
    inputs: dict[str, torch.Tensor],
    rows: Sequence[torch.Tensor | None],
) -> dict[str, torch.Tensor]:
    """``inputs`` with input embeddings in place of ids where some row has its own.

    rows: of each row the embeddings of its tokens, (tokens, d_h), or None for those of its ids.
    """
    if all(row is None for row in rows):
        return inputs
    values = model.get_input_embeddings()(inputs["input_ids"])
    for i, row in enumerate(rows):
        if row is not None:
            values[i, values.shape[1] - len(row) :] = row
    return {**{k: v for k, v in inputs.items() if k != "input_ids"}, "inputs_embeds": values}
