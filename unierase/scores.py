"""Scores of one row, and what an evaluation is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from unierase.rows import Row

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class RowScores:
    """Everything measured about one row; every aggregate is a pure function of these.

    loss, paraphrased_loss, perturbed_losses: mean cross-entropy in nats over the answer's tokens
        (the token that closes the answer included). None or empty where the row has no such text.
    first_token_loss: cross-entropy of the answer's first token alone.
    rouge: ROUGE-L recall of the generation against the answer, in [0, 1].
    token_entropy: normalised unigram entropy of the generation, in [0, 1].
    cosine, entailment: in [0, 1]; None where the auxiliary model is not available.
    emits_unl: the generation holds an unlearning token (which ``generation`` does not show).
    exact_memorisation, extraction_strength: of the answer, in [0, 1].
    membership: scores of membership inference by attack, where they were asked for.
    flagged: whether an inference-time method took the question for one to be forgotten; None for
        a model without one.
    refusal: how much of a refusal the generation is, in [0, 1]; None where it was not asked for.
    banned_generation, banned_rouge: the same with the unlearning tokens banned while decoding:
        what comes back. None where it was not asked for.
    """

    id: str
    question: str
    answer: str
    loss: float
    first_token_loss: float
    answer_tokens: int
    paraphrased_loss: float | None
    perturbed_losses: tuple[float, ...]
    generation: str
    generated_tokens: int
    rouge: float
    token_entropy: float
    cosine: float | None
    entailment: float | None
    emits_unl: bool
    flagged: bool | None = None
    exact_memorisation: float | None = None
    extraction_strength: float | None = None
    membership: Mapping[str, float] | None = None
    refusal: float | None = None
    banned_generation: str | None = None
    banned_rouge: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> RowScores:
        return RowScores(
            **{**values, "perturbed_losses": tuple(values["perturbed_losses"])},
        )


@dataclass(frozen=True)
class TaskScores:
    """What was measured about a row that is no question-answer pair, under its measures' names:
    a text, a task. ``generation``: what the model said or chose, empty where it was not asked."""

    id: str
    question: str
    answer: str
    generation: str
    values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def scores_from_json(values: Mapping[str, Any]) -> RowScores | TaskScores:
    """What ``to_json`` wrote."""
    return TaskScores(**values) if "values" in values else RowScores.from_json(values)


AnswerSets = Mapping[str, Sequence[RowScores]]
"""``SetScores`` of question-answer pairs alone."""

SetScores = Mapping[str, Sequence[RowScores | TaskScores]]
"""Row scores by set name: "forget", "retain", "real_authors", ..., in row order."""


def answer_sets(scores: SetScores) -> AnswerSets:
    """The question-answer pairs among ``scores``."""
    return {
        name: [row for row in rows if isinstance(row, RowScores)] for name, rows in scores.items()
    }


Metrics = Mapping[str, Any]
"""JSON values. ``metrics["sets"][name]`` holds the scores of a set, with ``rows``, their number;
beside ``sets`` stand the aggregates over sets (FE, MU, RE, balance, model_utility, ...). None
stands for what could not be computed, and ``metrics["absent"][name]`` says why."""


class Evaluation(Protocol):
    """Scores a model on sets of rows and aggregates the scores."""

    def settings(self) -> Mapping[str, Any]:
        """Everything that decides the scores besides model and rows, as JSON values."""

    def select(self, sets: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        """The rows that would be scored: all, or a fixed choice where a limit is set."""

    def score(self, lm: LanguageModel, sets: Mapping[str, Sequence[Row]]) -> SetScores:
        """Score ``lm`` on every row of every set, with one likelihood and one generation pass."""

    def aggregate(self, scores: SetScores, retrained: SetScores | None) -> Metrics:
        """Aggregate; ``retrained`` holds the retrained model's scores on the forget set."""
