"""In-context unlearning: the prompt says what to forget (arXiv 2310.07579, 2406.10890)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from baselines.inference.texts import joined, packed, unpacked
from unierase.errors import UserError, invalid_choice
from unierase.models.guard import Reading
from unierase.models.prompt import encode_prompt
from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel

PLACES = ("system", "question")


class Preamble(Protocol):
    """What is put before every question."""

    def extend(self, texts: Sequence[str], request: UnlearningRequest) -> list[str]:
        """The parts of the preamble, those of earlier requests (``texts``) among them."""

    def written(self, texts: Sequence[str]) -> str:
        """The preamble."""


@dataclass(frozen=True)
class NameTopics:
    """An instruction that names the people, or for rows about nobody the questions, to forget."""

    instruction: str

    def __post_init__(self) -> None:
        if self.instruction.count("{topics}") != 1:
            raise UserError("method.preamble.instruction: needs one {topics}")

    def extend(self, texts: Sequence[str], request: UnlearningRequest) -> list[str]:
        names = {row.group: row.subject for row in request.forget if row.subject is not None}
        topics = [names.get(row.group) or row.question for row in request.forget]
        return joined(texts, topics)

    def written(self, texts: Sequence[str]) -> str:
        return self.instruction.replace("{topics}", "; ".join(texts))


@dataclass(frozen=True)
class FlippedLabels:
    """Examples: forget questions with the answers of others, then retained ones with their own.

    shots: examples of each kind, drawn by the seed anew from each request.
    """

    shots: int

    def extend(self, texts: Sequence[str], request: UnlearningRequest) -> list[str]:
        draw = random.Random(f"flipped:{request.seed}:{request.round}")
        retain = draw.sample(request.retain, min(self.shots, len(request.retain)))
        forget = draw.sample(request.forget, min(self.shots, len(request.forget)))
        # The next one's answer; a single row takes that of a retained one.
        others = [*forget[1:], forget[0]] if len(forget) > 1 else retain[:1]
        if not others:
            raise UserError("method=in_context: one row to forget and none retained to take from")
        flipped = [_example(a.question, b.answer) for a, b in zip(forget, others, strict=True)]
        return joined(texts, [*flipped, *(_example(row.question, row.answer) for row in retain)])

    def written(self, texts: Sequence[str]) -> str:
        return "\n\n".join(texts)


def _example(question: str, answer: str) -> str:
    return f"Question: {question}\nAnswer: {answer}"


@dataclass(frozen=True)
class PreambleGuard:
    """Puts a text before every question, as system message or in the user's turn."""

    text: str
    place: str

    def read(self, lm: LanguageModel, questions: Sequence[str]) -> list[Reading]:
        return [Reading(self._ids(lm, question)) for question in questions]

    def _ids(self, lm: LanguageModel, question: str) -> tuple[int, ...]:
        if self.place == "question":
            return lm.encode_prompt(question, prefix=self.text + "\n\n").ids
        told = lm.prompt.with_system(self.text)
        if told is None:
            raise UserError(
                "method.place=system: a model without chat format; take method.place=question"
            )
        try:
            written = told.render(lm.tokenizer, question, "").text
        except Exception as error:  # what a template raises is its own affair
            raise _no_system_message() from error
        if self.text.strip() not in written:
            raise _no_system_message()
        return encode_prompt(told, lm.tokenizer, question).ids


def _no_system_message() -> UserError:
    return UserError(
        "method.place=system: the model's chat template takes no system message; take "
        "method.place=question"
    )


@dataclass(frozen=True)
class InContext(UnlearningMethod):
    """Every prompt is preceded by a text made from the request's rows alone.

    place: system (a system message) or question (before the question, in the user's turn).
    """

    name: str
    preamble: Preamble
    place: str

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise invalid_choice("method.place", self.place, PLACES)

    def cost(self, model: PreTrainedModel, request: UnlearningRequest) -> str:
        letters = len(self.preamble.written(self.preamble.extend([], request)))
        return f"no weights change; every prompt gets some {letters:,} characters longer"

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        texts = self.preamble.extend(unpacked(state, "preamble"), request)
        new = {"preamble": packed(texts)}
        told = self.restore(lm, new)
        (reading,) = told.read([request.forget[0].question])
        return Unlearned(told, new, {"parts": len(texts), "prompt_tokens": len(reading.ids)})

    def restore(self, lm: LanguageModel, state: State) -> LanguageModel:
        text = self.preamble.written(unpacked(state, "preamble"))
        return replace(lm, guard=PreambleGuard(text, self.place))
