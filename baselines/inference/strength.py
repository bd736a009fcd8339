"""The strength of a corruption, found without gradients (ECO, arXiv 2406.07933, section 3.4)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unierase.errors import UserError
from unierase.request import RetrainsModels, UnlearningRequest
from unierase.rows import Row

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class StrengthSearch:
    """Looks for the strength s at which forget answers are as likely as for a model without them.

    Minimises f(s) = |mean answer probability(s) - surrogate| by central differences in log s:
    log s <- log s - lr (f(s e^eps) - f(s e^-eps)) / 2 eps, at most by 1, and keeps the best s it
    has tried. The published search goes in s itself (lr 100, eps 0.999 s, stopping below a
    threshold); in log s one step size serves strengths of 0.1 and of 1000.

    surrogate: the probability a model has that never saw the rows; None: measured on the
        retrained model.
    rows: forget rows it is measured on, at most. tolerance: f at which the search ends.
    """

    surrogate: float | None
    steps: int
    lr: float
    eps: float
    rows: int
    tolerance: float

    def __post_init__(self) -> None:
        for name in ("steps", "lr", "eps", "rows"):
            if getattr(self, name) <= 0:
                raise UserError(f"method.search.{name}={getattr(self, name)}: must be above 0")

    def best(
        self,
        start: float,
        guarded: Callable[[float], LanguageModel],
        request: UnlearningRequest,
        targets: RetrainsModels,
    ) -> tuple[float, list[tuple[float, float]]]:
        """The best strength, and every (strength, mean answer probability) that was tried.

        guarded: the model with its forget prompts corrupted at a strength.
        """
        count = min(self.rows, len(request.forget))
        rows = random.Random(f"strength:{request.seed}").sample(request.forget, count)
        surrogate = self.surrogate
        if surrogate is None:
            surrogate = mean_answer_probability(targets.retrained(request.retain), rows)
        scores: dict[float, float] = {}

        def distance(change: float) -> float:
            strength = start * math.exp(change)
            if strength not in scores:
                scores[strength] = mean_answer_probability(guarded(strength), rows)
            return abs(scores[strength] - surrogate)

        at = 0.0  # log (s / start)
        for _ in range(self.steps):
            if distance(at) <= self.tolerance:
                break
            slope = (distance(at + self.eps) - distance(at - self.eps)) / (2 * self.eps)
            at -= max(-1.0, min(1.0, self.lr * slope))
        chosen = min(scores, key=lambda strength: abs(scores[strength] - surrogate))
        return chosen, list(scores.items())


def mean_answer_probability(lm: LanguageModel, rows: Sequence[Row]) -> float:
    """Mean over ``rows`` of exp(mean log-probability of the answer's tokens)."""
    from unierase.scoring.likelihood import answer_log_probabilities

    values = answer_log_probabilities(lm, [(row.question, row.answer) for row in rows])
    return sum(math.exp(float(value.mean())) for value in values) / len(values)
