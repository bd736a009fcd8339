"""Attention states of prefixes that stay the same while only what follows them changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers import DynamicCache

from unierase.scoring.batching import embedded, left_pad

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

KeysAndValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class PrefixStates:
    """layers: keys and values of each layer, (rows, heads, longest, head size), left-padded.

    mask: (rows, longest), 1 at a prefix's own tokens.
    """

    layers: Sequence[KeysAndValues]
    mask: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        lm: LanguageModel,
        prefixes: Sequence[Sequence[int]],
        embeddings: Sequence[torch.Tensor | None] | None = None,
    ) -> PrefixStates:
        """Run the model over ``prefixes``; an empty one is all padding.

        embeddings: of each prefix its tokens' input embeddings, (tokens, d_h), or None for those
        the model has for them.
        """
        inputs = left_pad([ids or (lm.pad_id,) for ids in prefixes], lm.pad_id, lm.device)
        for i, ids in enumerate(prefixes):
            if not ids:
                inputs["attention_mask"][i] = 0
        if embeddings is not None:
            inputs = embedded(lm.model, inputs, embeddings)
        cache = DynamicCache()
        lm.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cls([(layer.keys, layer.values) for layer in cache.layers], inputs["attention_mask"])

    @classmethod
    def joined(cls, parts: Sequence[PrefixStates]) -> PrefixStates:
        """The rows of ``parts`` in one batch."""
        longest = max(part.mask.shape[1] for part in parts)

        def padded(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
            return torch.cat([_left_padded(t, longest, dim=2) for t in tensors])

        layers = [
            (padded([keys for keys, _ in layer]), padded([values for _, values in layer]))
            for layer in zip(*(part.layers for part in parts), strict=True)
        ]
        return cls(layers, torch.cat([_left_padded(part.mask, longest, 1) for part in parts]))

    def rows(self, chosen: Sequence[int]) -> PrefixStates:
        """A batch of the ``chosen`` rows, with no more padding than they need."""
        index = torch.tensor(list(chosen), device=self.mask.device)
        mask = self.mask[index]
        # One padding column stays for empty prefixes: a cache of no columns has no layers.
        longest = max(1, int(mask.sum(-1).max()))
        start = mask.shape[1] - longest
        layers = [
            (keys[index, :, start:], values[index, :, start:]) for keys, values in self.layers
        ]
        return PrefixStates(layers, mask[:, start:])

    @property
    def bytes(self) -> int:
        """Memory the keys and values take."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)

    def cache(self) -> DynamicCache:
        """A cache for one forward pass; the pass appends to it and leaves the states alone."""
        return DynamicCache(self.layers)


def _left_padded(tensor: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    missing = length - tensor.shape[dim]
    if not missing:
        return tensor
    behind = 2 * (tensor.dim() - 1 - dim)  # functional.pad counts from the last dimension
    return functional.pad(tensor, [0] * behind + [missing, 0])


@dataclass(frozen=True)
class Suffixes:
    """What follows the prefixes, padded on the right.

    ids, positions: (rows, longest). mask: (rows, longest), 1 at a suffix's own tokens.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def of(
        cls, suffixes: Sequence[Sequence[int]], starts: Sequence[int], lm: LanguageModel
    ) -> Suffixes:
        """``starts``: the position of each suffix's first token, the length of its prefix."""
        longest = max(len(ids) for ids in suffixes)
        ids = torch.full((len(suffixes), longest), lm.pad_id, dtype=torch.long)
        mask = torch.zeros((len(suffixes), longest), dtype=torch.long)
        for i, suffix in enumerate(suffixes):
            ids[i, : len(suffix)] = torch.tensor(list(suffix))
            mask[i, : len(suffix)] = 1
        positions = torch.tensor(list(starts))[:, None] + torch.arange(longest)
        return cls(ids.to(lm.device), positions.to(lm.device), mask.to(lm.device))

    @property
    def lengths(self) -> torch.Tensor:
        return self.mask.sum(-1)
