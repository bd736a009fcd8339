"""Several answers to one question as a tree: what they begin with alike is run once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class AnswerTree:
    """Answers to one question: their tokens but the last of each, which predicts nothing.

    tokens: of every node. parents: the node each follows, always an earlier one; -1: the question.
    paths: of every answer its nodes, in order.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, answers: Sequence[Sequence[int]]) -> AnswerTree:
        nodes: dict[tuple[int, int], int] = {}  # by parent and token
        paths = []
        for answer in answers:
            path: list[int] = []
            for token in answer[:-1]:
                place = (path[-1] if path else -1, token)
                path.append(nodes.setdefault(place, len(nodes)))
            paths.append(tuple(path))
        return cls(
            tuple(token for _, token in nodes), tuple(parent for parent, _ in nodes), tuple(paths)
        )

    def depths(self) -> list[int]:
        """Of every node, how many nodes are in front of it on its path."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return depths

    def seen(self) -> torch.Tensor:
        """(nodes, nodes): whether a node sees another, itself and what is in front of it."""
        seen = torch.eye(len(self.parents), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


@dataclass(frozen=True)
class TreeInputs:
    """Trees behind their questions, padded on the right.

    ids, positions, own: (rows, most nodes); ``own`` is 1 at a tree's own nodes.
    mask: what the model is given as attention_mask: (rows, prompt + nodes) where every tree is a
        single path, else (rows, 1, nodes, prompt + nodes), added to the attention's scores.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    own: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def of(
        cls, trees: Sequence[AnswerTree], prompts: torch.Tensor, lm: LanguageModel
    ) -> TreeInputs:
        """prompts: (rows, longest), 1 at the tokens of each tree's question."""
        rows, most = len(trees), max(len(tree.tokens) for tree in trees)
        ids = torch.full((rows, most), lm.pad_id, dtype=torch.long)
        depths, own = torch.zeros_like(ids), torch.zeros_like(ids)
        for i, tree in enumerate(trees):
            size = len(tree.tokens)
            ids[i, :size] = torch.tensor(tree.tokens)
            depths[i, :size] = torch.tensor(tree.depths())
            own[i, :size] = 1
        own = own.to(prompts)
        positions = depths.to(prompts) + prompts.sum(-1, keepdim=True)
        mask = torch.cat([prompts, own], dim=1)
        if any(len(tree.paths) > 1 for tree in trees):
            mask = _branching(trees, prompts, most, lm)
        return cls(ids.to(lm.device), positions, own, mask)


def _branching(
    trees: Sequence[AnswerTree], prompts: torch.Tensor, most: int, lm: LanguageModel
) -> torch.Tensor:
    seen = torch.zeros(len(trees), most, most, dtype=torch.bool)
    for i, tree in enumerate(trees):
        size = len(tree.tokens)
        seen[i, :size, :size] = tree.seen()
    # A padding node sees itself: a softmax over nothing is not a number.
    seen |= torch.eye(most, dtype=torch.bool)
    before = prompts.bool()[:, None, :].expand(-1, most, -1)
    whole = torch.cat([before, seen.to(before.device)], dim=-1)[:, None]
    dtype = lm.model.dtype
    return torch.zeros(whole.shape, dtype=dtype, device=whole.device).masked_fill_(
        ~whole, torch.finfo(dtype).min
    )


def may_branch(lm: LanguageModel, length: int) -> bool:
    """Whether rows of ``length`` tokens may hold trees: the attention takes a mask for every pair
    of tokens, and none of its layers looks at fewer tokens than these."""
    config = lm.model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    return config._attn_implementation in ("sdpa", "eager") and (not window or length <= window)
