"""A language model as methods and metrics see it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from unierase.models.dtypes import torch_dtype
from unierase.models.guard import PromptGuard, Reading
from unierase.models.prompt import EncodedPrompt, PromptFormat, encode_answer, encode_prompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

UNLEARNING_TOKEN = "[UNL"
"""How the name of every unlearning token begins: [UNL], or [UNL1], [UNL2], ... for several."""


@dataclass
class LanguageModel:
    """A causal language model, its tokenizer and its prompt format.

    guard: what an inference-time method puts between questions and the model. It is no part of a
        checkpoint: ``UnlearningMethod.restore`` makes it again from the method's state.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    prompt: PromptFormat
    guard: PromptGuard | None = None

    @property
    def unlearning_tokens(self) -> tuple[int, ...]:
        """Ids of the learned [UNL] tokens; empty for a model that has none."""
        added = self.tokenizer.get_added_vocab()
        return tuple(sorted(i for token, i in added.items() if token.startswith(UNLEARNING_TOKEN)))

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that close an answer."""
        return self.prompt.end_ids(self.tokenizer)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Any of these ends a generation."""
        return tuple({*self.end_ids[-1:], self.tokenizer.eos_token_id})

    @property
    def pad_id(self) -> int:
        """Any token will do: padding is masked by position, never by value."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else self.tokenizer.eos_token_id

    def encode_prompt(
        self, question: str, subject: str | None = None, prefix: str = ""
    ) -> EncodedPrompt:
        """Token ids of the prompt for ``question`` and its edit positions."""
        return encode_prompt(self.prompt, self.tokenizer, question, subject, prefix)

    def read(self, questions: Sequence[str]) -> list[Reading]:
        """Every question as the model gets to read it: what answers and scores start from."""
        if self.guard is None:
            return [Reading(self.encode_prompt(question).ids) for question in questions]
        return self.guard.read(self, questions)

    def encode_answer(self, answer: str) -> tuple[int, ...]:
        """Token ids of ``answer`` and of what closes it."""
        return encode_answer(self.prompt, self.tokenizer, answer)

    def in_dtype(self, dtype: str | None) -> LanguageModel:
        """The same model with its weights in ``dtype`` ("bfloat16", ...), or, for None, this one,
        which stays as it is in any case.

        Buffers, such as the frequencies of rotary positions, keep their own type.
        """
        if dtype is None:
            return self
        from torch import nn

        wanted = torch_dtype("dtype", dtype)
        cast = {id(p): nn.Parameter(p.to(wanted), p.requires_grad) for p in self.model.parameters()}
        return replace(self, model=copy.deepcopy(self.model, cast))

    def save(self, folder: Path) -> None:
        """Write a checkpoint that plain transformers loads (safetensors and tokenizer): the model
        without its guard."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
