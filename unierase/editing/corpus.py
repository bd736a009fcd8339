"""Texts whose keys stand for general knowledge: what the null-space projector protects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unierase.errors import UserError

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel
    from unierase.request import UnlearningRequest


class Corpus(Protocol):
    """Token sequences to average keys over."""

    def sequences(self, lm: LanguageModel, request: UnlearningRequest) -> list[tuple[int, ...]]:
        """The sequences as token ids."""

    def identity(self) -> Mapping[str, Any]:
        """What decides the sequences besides model and request, as JSON values."""


@dataclass(frozen=True)
class RetainRows:
    """The retain rows themselves, question and answer in the model's prompt format.

    Needs no other text, and it is the knowledge that has to stay; at full scale the paper takes
    Wikipedia instead (``HubText``).
    """

    def sequences(self, lm: LanguageModel, request: UnlearningRequest) -> list[tuple[int, ...]]:
        return [
            (*lm.encode_prompt(row.question).ids, *lm.encode_answer(row.answer))
            for row in request.retain
        ]

    def identity(self) -> Mapping[str, Any]:
        return {"corpus": "retain rows"}


@dataclass(frozen=True)
class TextFile:
    """A local text file, one passage a line."""

    path: str
    passages: int
    max_tokens: int = 256

    def sequences(self, lm: LanguageModel, request: UnlearningRequest) -> list[tuple[int, ...]]:
        path = Path(self.path)
        if not path.is_file():
            raise UserError(f"method.corpus.path={self.path}: no such file")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        return _truncated(lm, [line for line in lines if line][: self.passages], self.max_tokens)

    def identity(self) -> Mapping[str, Any]:
        return {"corpus": self.path, "passages": self.passages, "max_tokens": self.max_tokens}


@dataclass(frozen=True)
class HubText:
    """Passages of a hub data set (the paper: 100,000 of Wikipedia), streamed."""

    dataset: str
    config: str
    passages: int
    max_tokens: int = 1024
    split: str = "train"
    field: str = "text"

    def sequences(self, lm: LanguageModel, request: UnlearningRequest) -> list[tuple[int, ...]]:
        from datasets import load_dataset

        try:
            rows = load_dataset(self.dataset, self.config, split=self.split, streaming=True)
            texts = [row[self.field] for row in rows.take(self.passages)]
        except (OSError, ValueError) as error:
            raise UserError(
                f"method.corpus.dataset={self.dataset}: the hub can't be reached; take "
                "method/corpus=retain, or a local file with method/corpus=file"
            ) from error
        return _truncated(lm, texts, self.max_tokens)

    def identity(self) -> Mapping[str, Any]:
        return {
            "corpus": [self.dataset, self.config, self.split, self.field],
            "passages": self.passages,
            "max_tokens": self.max_tokens,
        }


def _truncated(lm: LanguageModel, texts: list[str], max_tokens: int) -> list[tuple[int, ...]]:
    encoded = lm.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return [tuple(ids[:max_tokens]) for ids in encoded if ids]
