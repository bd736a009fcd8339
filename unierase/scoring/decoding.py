"""Decoding many prompts at once: a row that is finished makes room for one that waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicLayer

from unierase.scoring.prefix import PrefixStates, sharing

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

Choice = Callable[[Sequence[int], torch.Tensor], torch.Tensor]
"""The next tokens, (rows,), of prompts, by their indices; logits: (rows, vocabulary), float32."""

FINISHED_SHARE = 1 / 8
"""Of a batch's rows; fewer that are finished cost less than copying the states of all others."""


@torch.inference_mode()
def decode(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_tokens: int,
    choose: Choice,
    ends: Callable[[Sequence[int]], bool],
    embeddings: Sequence[torch.Tensor | None] | None = None,
    on_end: Callable[[], object] = lambda: None,
) -> list[list[int]]:
    """New tokens of every prompt, in the order given.

    ends: whether these new tokens are all of a row; ``max_new_tokens`` are in any case.
    embeddings: as in ``PrefixStates.of``. on_end: called for every row that is finished.

    batch_tokens: about how many tokens' states are kept at once, beside those of what many prompts
    begin with. A row gets room for half of what it may say, for few say it all.
    """
    new: list[list[int]] = [[] for _ in prompts]
    if max_new_tokens < 1:
        return new
    waiting = deque(sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i)))
    rows = _Rows(lm)
    beginnings = _Beginnings(lm, prompts, embeddings or [None] * len(prompts))
    while waiting or rows.indices:
        admitted: list[int] = []
        longest = rows.width
        while waiting:
            longest = max(longest, len(prompts[waiting[0]]))
            count = len(rows.indices) + len(admitted) + 1
            if count > 1 and count * (longest + max_new_tokens // 2) > batch_tokens:
                break
            admitted.append(waiting.popleft())
        for order, states in beginnings.states(admitted):
            rows.admit(order, states)
        going = list(range(len(rows.indices)))
        while len(rows.indices) - len(going) < FINISHED_SHARE * len(rows.indices):
            chosen = choose([rows.indices[n] for n in going], rows.next_logits[going].float())
            tokens = torch.full((len(rows.indices),), lm.pad_id, device=lm.device)
            tokens[going] = chosen
            for n, token in zip(tuple(going), chosen.tolist(), strict=True):
                said = new[rows.indices[n]]
                said.append(token)
                if len(said) >= max_new_tokens or ends(said):
                    going.remove(n)
                    on_end()
            if going:
                rows.step(tokens)
        rows.keep(going)
    return new


class _Beginnings:
    """Runs prompts; what most of a prompt is in others too, as the examples of a task, once.

    A short beginning is run with every row: less than what it costs to put states together.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prompts: Sequence[Sequence[int]],
        embeddings: Sequence[torch.Tensor | None],
    ) -> None:
        self.lm, self.prompts, self.embeddings = lm, prompts, embeddings
        self.groups: list[tuple[int, PrefixStates | None, set[int]]] = []
        alone: set[int] = set()
        for shared, members in sharing(prompts):
            tokens = sum(len(prompts[i]) for i in members)
            if 2 * shared * len(members) > tokens and all(embeddings[i] is None for i in members):
                after = PrefixStates.of(lm, [prompts[members[0]][:shared]])
                self.groups.append((shared, after, set(members)))
            else:
                alone.update(members)
        self.groups.append((0, None, alone))

    def states(self, indices: Sequence[int]) -> Iterator[tuple[list[int], PrefixStates]]:
        """What is kept of the prompts with these indices, those that begin alike together."""
        for shared, after, members in self.groups:
            chosen = [i for i in indices if i in members]
            if chosen:
                rest = [self.prompts[i][shared:] for i in chosen]
                own = [self.embeddings[i] for i in chosen]
                yield chosen, PrefixStates.of(self.lm, rest, own, after)


class _Rows:
    """What is kept of the rows that are decoded together.

    indices: of their prompts. mask, next_logits: as of ``PrefixStates``.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        self.indices: list[int] = []
        self._rest(None)

    def _rest(self, states: PrefixStates | None) -> None:
        """Go on from ``states``."""
        self.layers = [] if states is None else [_Growing(*layer) for layer in states.layers]
        none = torch.empty(0, 0, device=self.lm.device)
        self.mask = none.long() if states is None else states.mask
        self.next_logits = none if states is None else states.next_logits

    @property
    def _states(self) -> PrefixStates:
        layers = [(layer.keys, layer.values) for layer in self.layers]
        return PrefixStates(layers, self.mask, self.next_logits)

    @property
    def width(self) -> int:
        """Tokens of a row, padding included."""
        return self.mask.shape[1]

    def admit(self, indices: Sequence[int], states: PrefixStates) -> None:
        """More rows, behind those that are there."""
        self._rest(PrefixStates.joined([self._states, states]) if self.indices else states)
        self.indices += indices

    def keep(self, chosen: Sequence[int]) -> None:
        """These rows alone, by their places."""
        if len(chosen) < len(self.indices):
            self._rest(self._states.rows(chosen) if chosen else None)
            self.indices = [self.indices[n] for n in chosen]

    def step(self, tokens: torch.Tensor) -> None:
        """One token more of each row, (rows,)."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        self.next_logits = self.lm.model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.mask.sum(-1, keepdim=True) - 1,
            past_key_values=Cache(layers=self.layers),
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]


class _Growing(DynamicLayer):
    """Keys and values with room behind them: a token more copies nothing that is there."""

    ROOM = 32
    """Tokens."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = self._buffers = keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        before = self.keys.shape[-2]
        now = before + key_states.shape[-2]
        if now > self._buffers[0].shape[-2]:
            room = [0, 0, 0, max(self.ROOM, now - before)]
            keys, values = functional.pad(self.keys, room), functional.pad(self.values, room)
            self._buffers = keys, values
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, before:now] = new
        self.keys, self.values = (buffer[:, :, :now] for buffer in self._buffers)
        return self.keys, self.values
