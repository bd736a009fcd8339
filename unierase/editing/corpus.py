"""Texts whose keys stand for general knowledge: what the null-space projector protects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from unierase.errors import UserError

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel
    from unierase.request import UnlearningRequest


class Corpus(Protocol):
    """Token sequences to average keys over.

    follows_request: the sequences differ from request to request.
    """

    follows_request: bool

    def sequences(self, lm: LanguageModel, request: UnlearningRequest) -> Iterable[tuple[int, ...]]:
        """The sequences as token ids."""

    def identity(self) -> Mapping[str, Any]:
        """What decides the sequences besides model and request, as JSON values."""

    def size(self, retain: int, row_tokens: int) -> tuple[int, int]:
        """Sequences, and tokens of each at most, for a request of ``retain`` rows."""


@dataclass(frozen=True)
class RetainRows:
    """The retain rows themselves, question and answer in the model's prompt format.

    Needs no other text, and it is the knowledge that has to stay; at full scale the paper takes
    Wikipedia instead (``HubText``).
    """

    follows_request = True

    def sequences(self, lm: LanguageModel, request: UnlearningRequest) -> list[tuple[int, ...]]:
        return [
            (*lm.encode_prompt(row.question).ids, *lm.encode_answer(row.answer))
            for row in request.retain
        ]

    def size(self, retain: int, row_tokens: int) -> tuple[int, int]:
        return retain, row_tokens

    def identity(self) -> Mapping[str, Any]:
        return {"corpus": "retain rows"}


@dataclass(frozen=True)
class TextFile:
    """A local text file, one passage a line."""

    path: str
    passages: int
    max_tokens: int = 256

    follows_request = False

    def _file(self) -> Path:
        path = Path(self.path)
        if not path.is_file():
            raise UserError(f"method.corpus.path={self.path}: no such file")
        return path

    def sequences(self, lm: LanguageModel, request: UnlearningRequest) -> Iterable[tuple[int, ...]]:
        with self._file().open(encoding="utf-8") as file:
            lines = (line.strip() for line in file)
            for line in islice((line for line in lines if line), self.passages):
                yield from _truncated(lm, line, self.max_tokens)

    def size(self, retain: int, row_tokens: int) -> tuple[int, int]:
        return self.passages, self.max_tokens

    def identity(self) -> Mapping[str, Any]:
        # By content: a file may change under its name.
        content = hashlib.sha256(self._file().read_bytes()).hexdigest()
        return {"corpus": content, "passages": self.passages, "max_tokens": self.max_tokens}


@dataclass(frozen=True)
class HubText:
    """Passages of a hub data set (the paper: 100,000 of Wikipedia), streamed."""

    dataset: str
    config: str
    passages: int
    max_tokens: int = 1024
    split: str = "train"
    field: str = "text"

    follows_request = False

    def sequences(self, lm: LanguageModel, request: UnlearningRequest) -> Iterable[tuple[int, ...]]:
        from datasets import load_dataset

        try:
            rows = load_dataset(self.dataset, self.config, split=self.split, streaming=True)
            for row in rows.take(self.passages):
                yield from _truncated(lm, row[self.field], self.max_tokens)
        except (OSError, ValueError) as error:
            raise UserError(
                f"method.corpus.dataset={self.dataset}: the hub can't be reached; take "
                "method/corpus=retain, or a local file with method/corpus=file"
            ) from error

    def size(self, retain: int, row_tokens: int) -> tuple[int, int]:
        return self.passages, self.max_tokens

    def identity(self) -> Mapping[str, Any]:
        return {
            "corpus": [self.dataset, self.config, self.split, self.field],
            "passages": self.passages,
            "max_tokens": self.max_tokens,
        }


@dataclass(frozen=True)
class GeneratedText:
    """Text the model itself writes, sampled from its distribution after nothing at all.

    General knowledge as the model has it, for machines without a corpus.
    """

    passages: int
    max_tokens: int = 64
    seed: int = 0
    batch_size: int = 32

    follows_request = False

    def sequences(self, lm: LanguageModel, request: UnlearningRequest) -> Iterable[tuple[int, ...]]:
        import torch

        start = lm.tokenizer.bos_token_id
        start = lm.tokenizer.eos_token_id if start is None else start
        devices = [lm.device] if lm.device.type == "cuda" else []
        for first in range(0, self.passages, self.batch_size):
            count = min(self.batch_size, self.passages - first)
            ids = torch.full((count, 1), start, device=lm.device)
            # A generator of its own: nothing else that draws is disturbed.
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(self.seed + first)
                texts = lm.model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=self.max_tokens,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    pad_token_id=lm.pad_id,
                )
            for text in texts[:, 1:].tolist():
                ended = next((i for i, token in enumerate(text) if token in lm.stop_ids), len(text))
                if ended:
                    yield tuple(text[:ended])

    def size(self, retain: int, row_tokens: int) -> tuple[int, int]:
        return self.passages, self.max_tokens

    def identity(self) -> Mapping[str, Any]:
        return {
            "corpus": "generated",
            "passages": self.passages,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }


def _truncated(lm: LanguageModel, text: str, max_tokens: int) -> Iterator[tuple[int, ...]]:
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"][:max_tokens]
    if ids:
        yield tuple(ids)
