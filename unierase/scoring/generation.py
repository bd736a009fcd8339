"""The generation pass: greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm
from transformers import StoppingCriteria

from unierase.scoring.batching import batches_by_length, embedded, left_pad
from unierase.scoring.sampling import GumbelNoise, seed_of

if TYPE_CHECKING:
    from transformers import LogitsProcessor, PreTrainedTokenizerFast

    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class Generation:
    """A greedy answer: its text without special tokens, its ids up to the closing token (left
    out), whether an unlearning token is among them, and ``Reading.flagged``."""

    text: str
    token_ids: tuple[int, ...]
    emits_unl: bool
    flagged: bool | None = None


@torch.inference_mode()
def greedy(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    banned: Sequence[int] = (),
    embeddings: Sequence[torch.Tensor | None] | None = None,
    noise: LogitsProcessor | None = None,
    until: Sequence[str] = (),
) -> list[list[int]]:
    """The likeliest continuations of ``prompts`` in one batch: new token ids, with whatever
    follows the closing token. None of the ``banned`` tokens is chosen. embeddings: as in
    ``PrefixStates.of``. noise: what is added to logits before the largest is taken. until: texts
    that end a row as the closing token does."""
    padded = left_pad(prompts, lm.pad_id, lm.device)
    inputs = {"input_ids": padded["input_ids"], "attention_mask": padded["attention_mask"]}
    if embeddings is not None:  # the ids stay: the new tokens follow them
        inputs = {**embedded(lm.model, inputs, embeddings), **inputs}
    output = lm.model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        eos_token_id=list(lm.stop_ids),
        pad_token_id=lm.pad_id,
        suppress_tokens=list(banned) or None,
        logits_processor=None if noise is None else [noise],
        stopping_criteria=[StopTexts(lm.tokenizer, until, padded["input_ids"].shape[1])]
        if until
        else None,
    )
    new: list[list[int]] = output[:, inputs["input_ids"].shape[1] :].tolist()
    return new


class StopTexts(StoppingCriteria):
    """Ends each row once one of some texts is in it. prompt: tokens before the first new one."""

    WINDOW = 16
    """Tokens at the end that are looked at: a text that a token completes is no longer."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], prompt: int
    ) -> None:
        self.tokenizer, self.texts, self.prompt = tokenizer, texts, prompt

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        start = max(self.prompt, input_ids.shape[1] - self.WINDOW)
        ends = self.tokenizer.batch_decode(input_ids[:, start:], skip_special_tokens=True)
        found = [any(text in end for text in self.texts) for end in ends]
        return torch.tensor(found, device=input_ids.device)


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

    batch_tokens: upper bound of rows x (prompt + ``max_new_tokens``) in one batch.
    temperature: None answers greedily; else tokens are drawn, by ``seed`` and question alone.
    until: texts that end an answer; they stay in it.
    """
    readings = lm.read(questions)
    stop = set(lm.stop_ids)
    unlearning_tokens = set(lm.unlearning_tokens)
    answers: dict[int, Generation] = {}

    def keep(i: int, row: Sequence[int]) -> None:
        end = next((n for n, token in enumerate(row) if token in stop), len(row))
        answers[i] = Generation(
            text=lm.tokenizer.decode(row[:end], skip_special_tokens=True).strip(),
            token_ids=tuple(row[:end]),
            emits_unl=not unlearning_tokens.isdisjoint(row[:end]),
            flagged=readings[i].flagged,
        )

    asked = []
    for i, reading in enumerate(readings):
        if reading.reply is None:
            asked.append(i)
        else:
            keep(i, reading.reply[:max_new_tokens])
    lengths = [len(readings[i].ids) + max_new_tokens for i in asked]
    with tqdm(total=len(asked), desc=progress, disable=progress is None, leave=False) as bar:
        for places in batches_by_length(lengths, batch_tokens):
            batch = [asked[place] for place in places]
            rows = greedy(
                lm,
                [readings[i].ids for i in batch],
                max_new_tokens,
                banned,
                [readings[i].embeddings for i in batch],
                None
                if temperature is None
                else GumbelNoise(temperature, [seed_of(seed, questions[i]) for i in batch]),
                until,
            )
            for i, row in zip(batch, rows, strict=True):
                keep(i, row)
            bar.update(len(batch))
    return [answers[i] for i in range(len(readings))]
