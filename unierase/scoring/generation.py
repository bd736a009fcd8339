"""The generation pass: greedy answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from unierase.scoring.decoding import decode
from unierase.scoring.sampling import GumbelNoise, seed_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class Generation:
    """A greedy answer: its text without special tokens, its ids up to the closing token (left
    out), whether an unlearning token is among them, whether one stands before all text (the model
    refuses; behind its answer one only takes the closing token's place), and
    ``Reading.flagged``."""

    text: str
    token_ids: tuple[int, ...]
    emits_unl: bool
    begins_unl: bool
    flagged: bool | None = None


def generate_ids(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_tokens: int = 8192,
    progress: str | None = None,
    banned: Sequence[int] = (),
    embeddings: Sequence[torch.Tensor | None] | None = None,
    noise: GumbelNoise | None = None,
    until: Sequence[str] = (),
) -> list[list[int]]:
    """The likeliest continuations of ``prompts``, in the order given: new token ids, the one that
    closes an answer included. None of the ``banned`` tokens is chosen. embeddings: as in
    ``PrefixStates.of``. noise: what is added to logits before the largest is taken. until: texts
    that end a row as the closing token does."""
    stop = set(lm.stop_ids)

    def choose(rows: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        logits[:, list(banned)] = -math.inf
        return (logits if noise is None else noise.added(rows, logits)).argmax(-1)

    def ends(said: Sequence[int]) -> bool:
        return said[-1] in stop or (bool(until) and holds(lm.tokenizer, said, until))

    with tqdm(total=len(prompts), desc=progress, disable=progress is None, leave=False) as bar:
        return decode(
            lm, prompts, max_new_tokens, batch_tokens, choose, ends, embeddings, bar.update
        )


WINDOW = 16
"""Tokens at the end of a row that are looked at: a text that a token completes is no longer."""


def holds(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[int], texts: Sequence[str]) -> bool:
    """Whether one of ``texts`` is at the end of a row."""
    end = tokenizer.decode(tokens[-WINDOW:], skip_special_tokens=True)
    return any(text in end for text in texts)


def generate(
    lm: LanguageModel,
    questions: Sequence[str],
    max_new_tokens: int = 200,
    batch_tokens: int = 8192,
    progress: str | None = None,
    banned: Sequence[int] = (),
    temperature: float | None = None,
    seed: str = "",
    until: Sequence[str] = (),
) -> list[Generation]:
    """Answers to ``questions``, in the order given, without the ``banned`` tokens.

    batch_tokens: about how many tokens' states are kept at once.
    temperature: None answers greedily; else tokens are drawn, by ``seed`` and question alone.
    until: texts that end an answer; they stay in it.
    """
    readings = lm.read(questions)
    stop = set(lm.stop_ids)
    unlearning_tokens = set(lm.unlearning_tokens)
    answers: dict[int, Generation] = {}

    def keep(i: int, row: Sequence[int]) -> None:
        end = next((n for n, token in enumerate(row) if token in stop), len(row))
        first = next((n for n, t in enumerate(row[:end]) if t in unlearning_tokens), None)
        answers[i] = Generation(
            text=lm.tokenizer.decode(row[:end], skip_special_tokens=True).strip(),
            token_ids=tuple(row[:end]),
            emits_unl=first is not None,
            begins_unl=first is not None and not lm.tokenizer.decode(row[:first]).strip(),
            flagged=readings[i].flagged,
        )

    asked = []
    for i, reading in enumerate(readings):
        if reading.reply is None:
            asked.append(i)
        else:
            keep(i, reading.reply[:max_new_tokens])
    noise = None
    if temperature is not None:
        noise = GumbelNoise(temperature, [seed_of(seed, questions[i]) for i in asked])
    rows = generate_ids(
        lm,
        [readings[i].ids for i in asked],
        max_new_tokens,
        batch_tokens,
        progress,
        banned,
        [readings[i].embeddings for i in asked],
        noise,
        until,
    )
    for i, row in zip(asked, rows, strict=True):
        keep(i, row)
    return [answers[i] for i in range(len(readings))]
