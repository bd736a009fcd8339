"""Attention states of prefixes that stay the same while only what follows them changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers import DynamicCache

from unierase.scoring.batching import batches_by_length, embedded, left_pad

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

KeysAndValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class PrefixStates:
    """layers: keys and values of each layer, (rows, heads, longest, head size), left-padded.

    mask: (rows, longest), 1 at a prefix's own tokens.
    next_logits: (rows, vocabulary), what follows each prefix.
    """

    layers: Sequence[KeysAndValues]
    mask: torch.Tensor
    next_logits: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        lm: LanguageModel,
        prefixes: Sequence[Sequence[int]],
        embeddings: Sequence[torch.Tensor | None] | None = None,
        after: PrefixStates | None = None,
    ) -> PrefixStates:
        """Run the model over ``prefixes``; an empty one is all padding.

        embeddings: of each prefix its tokens' input embeddings, (tokens, d_h), or None for those
        the model has for them. after: the states, of one row, that all prefixes go on from.
        """
        inputs = left_pad([ids or (lm.pad_id,) for ids in prefixes], lm.pad_id, lm.device)
        for i, ids in enumerate(prefixes):
            if not ids:
                inputs["attention_mask"][i] = 0
        if embeddings is not None:
            inputs = embedded(lm.model, inputs, embeddings)
        cache = DynamicCache()
        if after is not None:
            inputs, cache = after.followed_by(inputs)
        output = lm.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        return cls(layers, inputs["attention_mask"], output.logits[:, -1])

    @classmethod
    def sharing(cls, lm: LanguageModel, prefixes: Sequence[Sequence[int]]) -> PrefixStates:
        """As ``of``, but what many prefixes begin with, as a system message, is run once."""
        parts: list[PrefixStates] = []
        order: list[int] = []
        for shared, after, members in beginnings(lm, prefixes):
            parts.append(cls.of(lm, [prefixes[i][shared:] for i in members], after=after))
            order += members
        states = parts[0] if len(parts) == 1 else cls.joined(parts)
        return states.rows(sorted(range(len(order)), key=order.__getitem__))

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
        mask = torch.cat([_left_padded(part.mask, longest, 1) for part in parts])
        return cls(layers, mask, torch.cat([part.next_logits for part in parts]))

    def rows(self, chosen: Sequence[int]) -> PrefixStates:
        """A batch of the ``chosen`` rows, with no more padding than they need."""
        index = torch.tensor(list(chosen), device=self.mask.device)
        mask = self.mask[index]
        kept = mask.any(dim=0)
        # One padding column stays for empty prefixes: a cache of no columns has no layers.
        kept[-1] = True
        whole = bool(kept.all())
        layers = [
            (keys[index], values[index])
            if whole
            else (keys[index][:, :, kept], values[index][:, :, kept])
            for keys, values in self.layers
        ]
        return PrefixStates(layers, mask[:, kept], self.next_logits[index])

    def repeated(self, times: int) -> PrefixStates:
        """A batch of the one row there is, many times; it takes the memory of one."""
        layers = [
            (keys.expand(times, -1, -1, -1), values.expand(times, -1, -1, -1))
            for keys, values in self.layers
        ]
        logits = self.next_logits.expand(times, -1)
        return PrefixStates(layers, self.mask.expand(times, -1), logits)

    def followed_by(
        self, inputs: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], DynamicCache]:
        """``inputs`` whose rows all go on from the one row there is, and the cache they take."""
        before = self.repeated(len(inputs["position_ids"]))
        placed = {
            "position_ids": inputs["position_ids"] + before.mask.sum(-1, keepdim=True),
            "attention_mask": torch.cat([before.mask, inputs["attention_mask"]], dim=1),
        }
        return {**inputs, **placed}, before.cache()

    @property
    def bytes(self) -> int:
        """Memory the keys and values take."""
        return sum(k.nbytes + v.nbytes for k, v in self.layers)

    def cache(self) -> DynamicCache:
        """A cache for one forward pass; the pass appends to it and leaves the states alone."""
        return DynamicCache(self.layers)


SHORTEST = 16
"""Fewer tokens in common are not worth a pass of their own."""


def sharing(rows: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Groups of rows that begin alike, as (tokens in common, indices); each row is in one.

    Of all ways to group them, nested as beginnings are, the one that leaves the fewest tokens to
    run. In common is less than the whole of any row. Rows that share nothing are one group of 0.
    """
    order = sorted(range(len(rows)), key=lambda i: (tuple(rows[i]), i))
    common = [_alike(rows[one], rows[other]) for one, other in pairwise(order)]
    alone: list[int] = []
    groups: list[tuple[int, list[int]]] = []
    for first, last in _best(common, 0, len(order))[1] if order else []:
        members = order[first:last]
        if last - first == 1:
            alone += members
        else:
            most = min(len(rows[i]) for i in members) - 1
            groups.append((min(most, *common[first : last - 1]), members))
    return [*groups, (0, alone)] if alone else groups


def beginnings(
    lm: LanguageModel, rows: Sequence[Sequence[int]]
) -> Iterator[tuple[int, PrefixStates | None, list[int]]]:
    """Groups of rows that begin alike, as (tokens in common, their states or None, indices)."""
    for shared, members in sharing(rows):
        after = PrefixStates.of(lm, [rows[members[0]][:shared]]) if shared else None
        yield shared, after, members


def batches_by_beginning(
    lm: LanguageModel, rows: Sequence[Sequence[int]], batch_tokens: int
) -> Iterator[tuple[int, PrefixStates | None, list[int]]]:
    """The groups of ``beginnings`` in batches."""
    for shared, after, members in beginnings(lm, rows):
        for places in batches_by_length([len(rows[i]) for i in members], batch_tokens):
            yield shared, after, [members[place] for place in places]


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens at the beginning that are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _best(common: Sequence[int], first: int, last: int) -> tuple[int, list[tuple[int, int]]]:
    """Tokens saved, and the parts of rows ``first`` to ``last`` (in sorted order) that save them.

    common: what each row has in common with the next.
    """
    inside = common[first : last - 1]
    if not inside:
        return 0, [(first, last)]
    fewest = min(inside)
    together = fewest * len(inside) - SHORTEST if fewest >= SHORTEST else 0
    cuts = [first, *(first + i + 1 for i, n in enumerate(inside) if n == fewest), last]
    apart = [_best(common, a, b) for a, b in pairwise(cuts)]
    saved = sum(part[0] for part in apart)
    if together > saved:
        return together, [(first, last)]
    return saved, [part for _, parts in apart for part in parts]


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
