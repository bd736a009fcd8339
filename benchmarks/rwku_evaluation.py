"""RWKU's evaluation (arXiv 2406.10890): probes, membership inference, utilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.aggregates import set_metrics
from benchmarks.evaluation import QuestionAnswerEvaluation, membership_scores
from benchmarks.metrics.aggregate import harmonic_mean, mean
from benchmarks.metrics.membership import area_under_curve
from benchmarks.rwku import attack_of
from benchmarks.rwku_utility import UTILITIES, score_utility
from unierase.models.prompt import Opened
from unierase.rows import Row
from unierase.scores import Metrics, RowScores, SetScores, TaskScores, answer_sets

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

MIA = ("mia_forget", "mia_retain")
FORGET = ("forget_fb", "forget_qa", "forget_aa")
EARLIER = ("earlier_fb", "earlier_qa", "earlier_aa")
NEIGHBOR = ("neighbor_fb", "neighbor_qa")


@dataclass(frozen=True)
class RwkuEvaluation:
    """Greedy answers of ``max_new_tokens`` to every probe, log-probabilities of every text.

    limit, part, dtype: as of ``QuestionAnswerEvaluation``.
    """

    max_new_tokens: int = 30
    batch_tokens: int = 8192
    limit: int | None = None
    part: str = "all"
    dtype: str | None = None

    def __post_init__(self) -> None:
        _ = self._answers  # checks the options

    @property
    def _answers(self) -> QuestionAnswerEvaluation:
        return QuestionAnswerEvaluation(
            self.max_new_tokens,
            self.batch_tokens,
            self.limit,
            self.part,
            first_line=True,
            dtype=self.dtype,
        )

    def settings(self) -> Mapping[str, Any]:
        return {**self._answers.settings(), "benchmark": "rwku"}

    def select(self, sets: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        return self._answers.select(sets)

    def score(self, lm: LanguageModel, sets: Mapping[str, Sequence[Row]]) -> SetScores:
        lm = lm.in_dtype(self.dtype)
        chosen = self.select(sets)
        probes = {n: rows for n, rows in chosen.items() if n not in (*MIA, *UTILITIES)}
        answered = self._answered(lm, probes)
        found: dict[str, Sequence[RowScores | TaskScores]] = {}
        for name, rows in chosen.items():
            if name in MIA:
                found[name] = self._texts(lm, rows)
            elif name in UTILITIES:
                found[name] = score_utility(name, lm, rows, self.batch_tokens)
            else:
                found[name] = [answered[row.id] for row in rows]
        return found

    def _answered(
        self, lm: LanguageModel, sets: Mapping[str, Sequence[Row]]
    ) -> dict[str, RowScores]:
        """Scores by row id; rows whose answers begin alike go together."""
        rows = [row for members in sets.values() for row in members]
        found = {}
        for opening in sorted({row.opening for row in rows}):
            own = replace(lm, prompt=Opened(lm.prompt, opening)) if opening else lm
            alike = {
                name: [row for row in members if row.opening == opening]
                for name, members in sets.items()
            }
            # All of them were selected, and the weights are in their type already.
            scores = replace(self._answers, limit=None, part="all", dtype=None).score(own, alike)
            found.update({row.id: row for members in scores.values() for row in members})
        return found

    def _texts(self, lm: LanguageModel, rows: Sequence[Row]) -> list[TaskScores]:
        from unierase.scoring.likelihood import score_texts

        scores = score_texts(lm, [row.answer for row in rows], self.batch_tokens, "texts")
        return [
            TaskScores(row.id, "", row.answer, "", membership_scores(own, row.answer))
            for row, own in zip(rows, scores, strict=True)
        ]

    def aggregate(self, scores: SetScores, retrained: SetScores | None) -> Metrics:
        absent = {"forget_quality": "RWKU compares with no retrained model"}
        sets = {name: _set_metrics(name, rows) for name, rows in scores.items() if rows}
        metrics: dict[str, Any] = {"sets": sets, "absent": absent, "rwku": rwku_scores(scores)}
        forget, kept = metrics["rwku"]["forget_all"], metrics["rwku"]["neighbor_all"]
        both = forget is not None and kept is not None
        metrics["balance"] = harmonic_mean([1.0 - forget, kept]) if both else None
        return metrics


def _set_metrics(name: str, rows: Sequence[RowScores | TaskScores]) -> dict[str, Any]:
    if probes := answer_sets({name: rows})[name]:
        return set_metrics("forget" if name in (*FORGET, *EARLIER) else name, probes)
    values = [row.values for row in rows if isinstance(row, TaskScores)]
    names = [n for n in values[0] if all(n in row for row in values)]
    return {"rows": len(rows), **{n: mean([row[n] for row in values]) for n in names}}


def rwku_scores(scores: SetScores) -> dict[str, Any]:
    """The published table: ROUGE-L recall in [0, 1] by set, and All over the probes of several;
    the mean score of each attack on both sets of texts and its AUC; the utilities."""

    answers = answer_sets(scores)

    def rouge(*names: str) -> float | None:
        values = [row.rouge for name in names for row in answers.get(name, ())]
        return mean(values) if values else None

    found: dict[str, Any] = {name: rouge(name) for name in (*FORGET, *NEIGHBOR)}
    found |= {
        "forget_all": rouge(*FORGET),
        "neighbor_all": rouge(*NEIGHBOR),
        "earlier_all": rouge(*EARLIER),
        "attacks": _by_attack(answers.get("forget_aa", ())),
        "membership": _membership(*(scores.get(name, ()) for name in MIA)),
    }
    for name in UTILITIES:
        rows = [row for row in scores.get(name, ()) if isinstance(row, TaskScores)]
        found[name] = (
            mean([value for row in rows for value in row.values.values()]) if rows else None
        )
    return found


def _by_attack(rows: Sequence[RowScores]) -> dict[str, float]:
    kinds: dict[str, list[float]] = {}
    for row in rows:
        if kind := attack_of(row.id):
            kinds.setdefault(kind, []).append(row.rouge)
    return {kind: mean(values) for kind, values in sorted(kinds.items())}


def _membership(
    forget: Sequence[RowScores | TaskScores], retain: Sequence[RowScores | TaskScores]
) -> dict[str, dict[str, float]]:
    """By attack: FM and RM, its mean score on texts about the people and about others, and how
    well it tells them apart."""
    members = [row.values for row in forget if isinstance(row, TaskScores)]
    others = [row.values for row in retain if isinstance(row, TaskScores)]
    if not members or not others:
        return {}
    found = {}
    for name in members[0]:
        ours, theirs = [row[name] for row in members], [row[name] for row in others]
        auc = area_under_curve(ours, theirs)
        found[name] = {"forget": mean(ours), "retain": mean(theirs), "auc": auc}
    return found
