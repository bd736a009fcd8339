"""The evaluation of question answering: TOFU's metrics, and FE, RE, MU and Balance."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.metrics.aggregate import forget_quality, harmonic_mean, mean
from benchmarks.metrics.auxiliary import EntailmentModel, SentenceEncoder
from benchmarks.metrics.likelihood import (
    log_truth_ratio,
    normalised_probability,
    probability,
    truth_ratio_forget,
    truth_ratio_other,
)
from benchmarks.metrics.text import rouge_l_recall, token_entropy
from unierase.errors import UserError, invalid_choice
from unierase.rows import Row
from unierase.scores import Metrics, RowScores, SetScores

if TYPE_CHECKING:
    import numpy as np

    from unierase.models.language_model import LanguageModel
    from unierase.scoring.generation import Generation

FORGET_SETS = ("forget", "earlier")
OPTION_SETS = ("real_authors", "world_facts")
"""Sets whose probability TOFU normalises by that of the wrong options."""
HELD_OUT = "held_out"
"""Retained rows that no method is shown: reported beside the aggregates, not in them."""
UTILITY_SETS = ("retain", *OPTION_SETS)

PARTS = ("all", "validation", "test")

SIX = ("probability", "rouge", "truth_ratio", "token_entropy", "cosine", "entailment")
FIVE = tuple(name for name in SIX if name != "token_entropy")


@dataclass(frozen=True)
class QuestionAnswerEvaluation:
    """One likelihood pass and one generation pass over all sets; see ``RowScores``.

    part: all rows, or the half of them that settings are tuned on (validation), or the other one
        (test); which row is in which half depends on its id alone.
    limit: at most this many rows of each set, drawn by row id alone, so that every method is
        scored on the same; None scores all.
    ban_unlearning_tokens: forget sets are answered once more with [UNL] banned, as somebody would
        who wants the knowledge back.
    """

    max_new_tokens: int = 200
    batch_tokens: int = 8192
    limit: int | None = None
    part: str = "all"
    cosine: SentenceEncoder | None = None
    entailment: EntailmentModel | None = None
    ban_unlearning_tokens: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"evaluation.limit={self.limit}: give a number above 0, or null")
        if self.part not in PARTS:
            raise invalid_choice("evaluation.part", self.part, PARTS)
        if self.max_new_tokens < 1:
            raise UserError(f"evaluation.max_new_tokens={self.max_new_tokens}: must be above 0")

    def settings(self) -> Mapping[str, Any]:
        return {
            "max_new_tokens": self.max_new_tokens,
            "limit": self.limit,
            "part": self.part,
            "cosine": self.cosine.model if self.cosine else None,
            "entailment": self.entailment.model if self.entailment else None,
            "ban_unlearning_tokens": self.ban_unlearning_tokens,
        }

    def select(self, sets: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        return {name: limited(in_part(rows, self.part), self.limit) for name, rows in sets.items()}

    def score(self, lm: LanguageModel, sets: Mapping[str, Sequence[Row]]) -> SetScores:
        from unierase.scoring.generation import generate
        from unierase.scoring.likelihood import answer_log_probabilities

        chosen = self.select(sets)
        rows = list({row.id: row for members in chosen.values() for row in members}.values())
        pairs = [(row.question, answer) for row in rows for answer in _answers(row)]
        values = iter(answer_log_probabilities(lm, pairs, self.batch_tokens, "likelihoods"))
        questions = list(dict.fromkeys(row.question for row in rows))
        answers = generate(lm, questions, self.max_new_tokens, self.batch_tokens, "generation")
        generations = dict(zip(questions, answers, strict=True))
        texts = [generations[row.question].text for row in rows]
        references = [row.answer for row in rows]
        rouge = rouge_l_recall(references, texts)
        cosine = self.cosine.scores(references, texts) if self.cosine else [None] * len(rows)
        entailment = self._entailment(rows, texts, rouge, set_of_rows(chosen))
        banned = self._banned(lm, chosen, generations)
        scored = {}
        for i, row in enumerate(rows):
            losses = _losses(row, values)
            generation = generations[row.question]
            scored[row.id] = RowScores(
                id=row.id,
                question=row.question,
                answer=row.answer,
                **losses,
                generation=generation.text,
                generated_tokens=len(generation.token_ids),
                rouge=rouge[i],
                token_entropy=token_entropy(generation.token_ids),
                cosine=cosine[i],
                entailment=entailment[i],
                emits_unl=generation.emits_unl,
                flagged=generation.flagged,
                **banned.get(row.id, {}),
            )
        return {name: [scored[row.id] for row in members] for name, members in chosen.items()}

    def _banned(
        self,
        lm: LanguageModel,
        sets: Mapping[str, Sequence[Row]],
        generations: Mapping[str, Generation],
    ) -> dict[str, dict[str, Any]]:
        """By row id: what forget questions are answered without unlearning tokens."""
        if not self.ban_unlearning_tokens:
            return {}
        from unierase.scoring.generation import generate

        rows = [row for name in FORGET_SETS for row in sets.get(name, ())]
        texts = [generations[row.question].text for row in rows]
        if lm.unlearning_tokens:  # else nothing is banned and the answers stay
            answers = generate(
                lm,
                [row.question for row in rows],
                self.max_new_tokens,
                self.batch_tokens,
                "generation without [UNL]",
                banned=lm.unlearning_tokens,
            )
            texts = [answer.text for answer in answers]
        rouge = rouge_l_recall([row.answer for row in rows], texts)
        return {
            row.id: {"banned_generation": text, "banned_rouge": score}
            for row, text, score in zip(rows, texts, rouge, strict=True)
        }

    def _entailment(
        self,
        rows: Sequence[Row],
        texts: Sequence[str],
        rouge: Sequence[float],
        sets: Mapping[str, str],
    ) -> Sequence[float | None]:
        if self.entailment is None:
            return [None] * len(rows)
        # The generation is the premise on forget sets, the reference elsewhere (arXiv 2410.08109).
        pairs = [
            (text, row.answer) if sets[row.id] in FORGET_SETS else (row.answer, text)
            for row, text in zip(rows, texts, strict=True)
        ]
        return self.entailment.scores([p for p, _ in pairs], [h for _, h in pairs], rouge)

    def aggregate(self, scores: SetScores, retrained: SetScores | None) -> Metrics:
        absent: dict[str, str] = {}
        if self.cosine is None:
            absent["cosine"] = "no sentence encoder configured (evaluation=cosine)"
        if self.entailment is None:
            absent["entailment"] = "no entailment model configured (evaluation=full)"
        sets = {name: set_metrics(name, rows) for name, rows in scores.items() if rows}
        metrics: dict[str, Any] = {"sets": sets, "absent": absent}
        _forgetting(metrics, sets, absent)
        _retaining(metrics, sets, absent)
        fe, mu = metrics["FE"], metrics["MU"]
        metrics["balance"] = None if fe is None or mu is None else harmonic_mean([fe, mu])
        metrics["forget_quality"] = None
        if retrained is None:
            absent["forget_quality"] = "no retrained model (forget_quality=true makes one)"
        else:
            ours, theirs = _log_ratios(scores["forget"]), _log_ratios(retrained["forget"])
            if ours and theirs:
                metrics["forget_quality"] = forget_quality(ours, theirs)
            else:
                absent["forget_quality"] = "no perturbed answers"
        return metrics


def in_part(rows: Sequence[Row], part: str) -> list[Row]:
    """The rows of ``part``, in order; each is either for validation or for the test."""
    if part == "all":
        return list(rows)
    chosen = part == "validation"
    return [row for row in rows if (random.Random(f"part:{row.id}").random() < 0.5) == chosen]


def limited(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """At most ``limit`` rows, in order; which ones depends on the ids alone."""
    if limit is None or len(rows) <= limit:
        return list(rows)
    drawn = sorted(rows, key=lambda row: random.Random(f"limit:{row.id}").random())[:limit]
    kept = {row.id for row in drawn}
    return [row for row in rows if row.id in kept]


def set_of_rows(sets: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """The first set each row id belongs to."""
    found: dict[str, str] = {}
    for name, rows in sets.items():
        for row in rows:
            found.setdefault(row.id, name)
    return found


def _answers(row: Row) -> Iterator[str]:
    yield row.answer
    if row.paraphrased_answer is not None:
        yield row.paraphrased_answer
    yield from row.perturbed_answers


def _losses(row: Row, values: Iterator[np.ndarray]) -> dict[str, Any]:
    own = next(values)
    return {
        "loss": float(-own.mean()),
        "first_token_loss": float(-own[0]),
        "answer_tokens": len(own),
        "paraphrased_loss": (
            None if row.paraphrased_answer is None else float(-next(values).mean())
        ),
        "perturbed_losses": tuple(float(-next(values).mean()) for _ in row.perturbed_answers),
    }


def _log_ratios(rows: Sequence[RowScores]) -> list[float]:
    """log R of every row with perturbed answers; a row without a paraphrase uses its answer."""
    return [
        log_truth_ratio(
            row.loss if row.paraphrased_loss is None else row.paraphrased_loss,
            row.perturbed_losses,
        )
        for row in rows
        if row.perturbed_losses
    ]


def set_metrics(name: str, rows: Sequence[RowScores]) -> dict[str, Any]:
    """The six scores of one set, as metrics of forgetting or retaining define them."""
    forget = name in FORGET_SETS
    ratios = _log_ratios(rows)
    if name in OPTION_SETS:
        likely = [normalised_probability(row.loss, row.perturbed_losses) for row in rows]
    else:
        likely = [probability(row.loss) for row in rows]
    per_row = [truth_ratio_forget(r) if forget else truth_ratio_other(r) for r in ratios]
    truth = mean(per_row) if per_row else None
    metrics: dict[str, Any] = {
        "rows": len(rows),
        "probability": mean(likely),
        "rouge": mean([row.rouge for row in rows]),
        "truth_ratio": None if truth is None else 1.0 - truth if forget else truth,
        "token_entropy": mean([row.token_entropy for row in rows]),
        "cosine": _mean_or_none([row.cosine for row in rows]),
        "entailment": _mean_or_none([row.entailment for row in rows]),
        "emits_unl": mean([float(row.emits_unl) for row in rows]),
        "flagged": _mean_or_none([row.flagged for row in rows]),
        "generated_tokens": mean([float(row.generated_tokens) for row in rows]),
        "first_token_probability": mean([probability(row.first_token_loss) for row in rows]),
        "rest_probability": _mean_or_none([_rest_probability(row) for row in rows]),
        "banned_rouge": _mean_or_none([row.banned_rouge for row in rows]),
    }
    if forget:
        metrics["tofu_truth_ratio"] = truth
    return metrics


def _rest_probability(row: RowScores) -> float | None:
    """exp of the mean log-probability from the answer's second token on: what is left of an
    answer whose first token alone was redirected. None for an answer of one token."""
    if row.answer_tokens < 2:
        return None
    rest = row.loss * row.answer_tokens - row.first_token_loss
    return probability(rest / (row.answer_tokens - 1))


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return mean(present) if len(present) == len(values) and present else None


def _present(metrics: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    return [metrics[name] for name in names if metrics[name] is not None]


def _forgetting(
    metrics: dict[str, Any], sets: Mapping[str, Mapping[str, Any]], absent: dict[str, str]
) -> None:
    """FE = 1 - mean of the forget set's five scores without entropy (arXiv 2410.08109)."""
    metrics["FE_scores_full"] = len(FIVE)
    for name, key in (("forget", "FE"), ("earlier", "FE_earlier")):
        if name in sets:
            five = _present(sets[name], FIVE)
            metrics[key] = 1.0 - mean(five)
            metrics[f"{key}_scores"] = len(five)
    if "forget" not in sets:
        metrics.update(FE=None, FE_scores=0)
        absent["FE"] = "no forget set was scored"
    metrics["forget_truth_ratio"] = sets.get("forget", {}).get("tofu_truth_ratio")


def _retaining(
    metrics: dict[str, Any], sets: Mapping[str, Mapping[str, Any]], absent: dict[str, str]
) -> None:
    """MU, RE: harmonic means of all six scores over the other sets; TOFU's model utility."""
    others = [name for name in sets if name not in FORGET_SETS and name != HELD_OUT]
    groups = (("MU", others), ("RE", [name for name in others if name == "retain"]))
    for key, names in groups:
        values = [value for name in names for value in _present(sets[name], SIX)]
        metrics[key] = harmonic_mean(values) if values else None
        metrics[f"{key}_scores"] = len(values)
        metrics[f"{key}_scores_full"] = len(SIX) * len(names)
        if not values:
            absent[key] = "no set to retain was scored"
    missing = [name for name in UTILITY_SETS if name not in sets]
    nine = (
        []
        if missing
        else [
            sets[name][score]
            for name in UTILITY_SETS
            for score in ("probability", "rouge", "truth_ratio")
        ]
    )
    if missing or any(value is None for value in nine):
        metrics["model_utility"] = None
        absent["model_utility"] = f"needs {', '.join(UTILITY_SETS)} with perturbed answers"
    else:
        metrics["model_utility"] = harmonic_mean(nine)
