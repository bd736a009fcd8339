"""The evaluation of question answering: TOFU's metrics, and FE, RE, MU and Balance."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.aggregates import (
    FORGET,
    FORGET_SETS,
    HOLDOUT,
    NEIGHBOR,
    add_forgetting,
    add_retaining,
    log_ratios,
    membership,
    set_metrics,
)
from benchmarks.intervals import bootstrap_intervals
from benchmarks.metrics.aggregate import forget_quality, harmonic_mean
from benchmarks.metrics.auxiliary import EntailmentModel, SentenceEncoder
from benchmarks.metrics.membership import gradient_score, loss_score, lowest_mean, zlib_score
from benchmarks.metrics.memorisation import exact_memorisation, extraction_strength
from benchmarks.metrics.refusal import refusal_degrees
from benchmarks.metrics.text import rouge_l_recall, token_entropy
from unierase.errors import UserError, invalid_choice
from unierase.models.dtypes import DTYPES
from unierase.rows import Row
from unierase.scores import AnswerSets, Metrics, RowScores, SetScores, answer_sets

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel
    from unierase.scoring.generation import Generation
    from unierase.scoring.likelihood import AnswerScores

PARTS = ("all", "validation", "test")


@dataclass(frozen=True)
class QuestionAnswerEvaluation:
    """One likelihood pass and one generation pass over all sets; see ``RowScores``.

    part: all rows, or the half of them that settings are tuned on (validation), or the other one
        (test); which row is in which half depends on its id alone.
    limit: at most this many rows of each set, drawn by row id alone, so that every method is
        scored on the same; None scores all.
    privacy: membership inference, forget rows against rows no model was taught.
    gradient_norm: by the norm of the gradient, too, at the price of a backward pass a row.
    ban_unlearning_tokens: forget sets are answered once more with [UNL] banned, as somebody would
        who wants the knowledge back.
    over_forgetting: how often every set is refused, and the set "swapped": questions to be
        forgotten, asked about somebody who is not.
    dtype: weights are scored in this type; None: the model's own. On a CPU with AMX bfloat16 takes
        half the time or less; losses then have two to three digits.
    refusals: texts that refuse; the experiment gives the data's.
    first_line: what a generation says behind its first line is not read.
    """

    max_new_tokens: int = 200
    batch_tokens: int = 8192
    limit: int | None = None
    part: str = "all"
    cosine: SentenceEncoder | None = None
    entailment: EntailmentModel | None = None
    ban_unlearning_tokens: bool = False
    privacy: bool = False
    gradient_norm: bool = False
    first_line: bool = False
    over_forgetting: bool = False
    dtype: str | None = None
    refusals: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"evaluation.limit={self.limit}: give a number above 0, or null")
        if self.part not in PARTS:
            raise invalid_choice("evaluation.part", self.part, PARTS)
        if self.dtype is not None and self.dtype not in DTYPES:
            raise invalid_choice("evaluation.dtype", self.dtype, (*DTYPES, "null"))
        if self.gradient_norm and not self.privacy:
            raise UserError("evaluation.gradient_norm=true: is part of evaluation.privacy=true")
        if self.max_new_tokens < 1:
            raise UserError(f"evaluation.max_new_tokens={self.max_new_tokens}: must be above 0")

    def settings(self) -> Mapping[str, Any]:
        settings: dict[str, Any] = {
            "max_new_tokens": self.max_new_tokens,
            "limit": self.limit,
            "part": self.part,
            "cosine": self.cosine.model if self.cosine else None,
            "entailment": self.entailment.model if self.entailment else None,
            "ban_unlearning_tokens": self.ban_unlearning_tokens,
            "privacy": self.privacy,
        }
        # As it was before there was a choice: scores that were kept stay valid.
        if self.over_forgetting:
            settings["over_forgetting"] = list(self.refusals)
        for name in ("first_line", "gradient_norm", "dtype"):
            if value := getattr(self, name):
                settings[name] = value
        return settings

    def select(self, sets: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        return {name: limited(in_part(rows, self.part), self.limit) for name, rows in sets.items()}

    def score(
        self,
        lm: LanguageModel,
        sets: Mapping[str, Sequence[Row]],
        decode: Callable[..., list[Generation]] | None = None,
    ) -> AnswerSets:
        """decode: answers in the place of ``generate``, with its first five arguments."""
        from unierase.scoring.generation import generate
        from unierase.scoring.likelihood import score_answers

        lm = lm.in_dtype(self.dtype)
        chosen = self.select(sets)
        rows = list({row.id: row for members in chosen.values() for row in members}.values())
        pairs = [
            (row.question, lm.encode_answer(answer)) for row in rows for answer in _answers(row)
        ]
        # Of a row's answers its own, the first, is looked for in the training data.
        own = [self.privacy and n == 0 for row in rows for n, _ in enumerate(_answers(row))]
        values = iter(score_answers(lm, pairs, self.batch_tokens, "likelihoods", own))
        questions = list(dict.fromkeys(row.question for row in rows))
        answer = decode or generate
        answers = answer(lm, questions, self.max_new_tokens, self.batch_tokens, "generation")
        generations = dict(zip(questions, answers, strict=True))
        texts = [self._read(generations[row.question].text) for row in rows]
        references = [row.answer for row in rows]
        rouge = rouge_l_recall(references, texts)
        cosine = self.cosine.scores(references, texts) if self.cosine else [None] * len(rows)
        entailment = self._entailment(rows, texts, rouge, set_of_rows(chosen))
        banned = self._banned(lm, chosen, generations)
        refusals = self._refusals([generations[row.question] for row in rows])
        norms = self._gradient_norms(lm, chosen)
        scored = {}
        for i, row in enumerate(rows):
            likelihoods = _likelihoods(row, values, self.privacy)
            if row.id in norms:
                likelihoods["membership"]["gradient_norm"] = gradient_score(norms[row.id])
            generation = generations[row.question]
            scored[row.id] = RowScores(
                id=row.id,
                question=row.question,
                answer=row.answer,
                **likelihoods,
                generation=texts[i],
                generated_tokens=len(generation.token_ids),
                rouge=rouge[i],
                token_entropy=token_entropy(generation.token_ids),
                cosine=cosine[i],
                entailment=entailment[i],
                emits_unl=generation.emits_unl,
                flagged=generation.flagged,
                refusal=refusals[i],
                **banned.get(row.id, {}),
            )
        return {name: [scored[row.id] for row in members] for name, members in chosen.items()}

    def _read(self, text: str) -> str:
        return text.split("\n", 1)[0] if self.first_line else text

    def _refusals(self, generations: Sequence[Generation]) -> Sequence[float | None]:
        """How much of a refusal each is; one that begins with [UNL] is, whatever follows it."""
        if not self.over_forgetting:
            return [None] * len(generations)
        texts = [generation.text for generation in generations]
        degrees = refusal_degrees(texts, self.refusals, self.cosine)
        return [
            1.0 if generation.begins_unl else degree
            for generation, degree in zip(generations, degrees, strict=True)
        ]

    def _gradient_norms(
        self, lm: LanguageModel, sets: Mapping[str, Sequence[Row]]
    ) -> dict[str, float]:
        """By row id, of the rows that membership inference compares; replies have none."""
        if not self.gradient_norm:
            return {}
        from unierase.scoring.gradients import gradient_norms

        rows = [row for name in (FORGET, HOLDOUT) for row in sets.get(name, ())]
        pairs = [(row.question, lm.encode_answer(row.answer)) for row in rows]
        norms = gradient_norms(lm, pairs, "gradients")
        return {r.id: norm for r, norm in zip(rows, norms, strict=True) if norm is not None}

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
        texts = [self._read(generations[row.question].text) for row in rows]
        if lm.unlearning_tokens:  # else nothing is banned and the answers stay
            answers = generate(
                lm,
                [row.question for row in rows],
                self.max_new_tokens,
                self.batch_tokens,
                "generation without [UNL]",
                banned=lm.unlearning_tokens,
            )
            texts = [self._read(answer.text) for answer in answers]
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
        # The generation is the premise on forget sets and all of RETURN's, the reference elsewhere
        # (arXiv 2410.08109).
        said = (*FORGET_SETS, NEIGHBOR)
        pairs = [
            (text, row.answer) if sets[row.id] in said else (row.answer, text)
            for row, text in zip(rows, texts, strict=True)
        ]
        return self.entailment.scores([p for p, _ in pairs], [h for _, h in pairs], rouge)

    def aggregate(self, scores: SetScores, retrained: SetScores | None) -> Metrics:
        scores = answer_sets(scores)
        retrained = None if retrained is None else answer_sets(retrained)
        absent: dict[str, str] = {}
        if self.cosine is None:
            absent["cosine"] = "no sentence encoder configured (evaluation=cosine)"
        if self.entailment is None:
            absent["entailment"] = "no entailment model configured (evaluation=full)"
        sets = {name: set_metrics(name, rows) for name, rows in scores.items() if rows}
        metrics: dict[str, Any] = {"sets": sets, "absent": absent}
        add_forgetting(metrics, sets, absent)
        add_retaining(metrics, sets, absent)
        fe, mu = metrics["FE"], metrics["MU"]
        metrics["balance"] = None if fe is None or mu is None else harmonic_mean([fe, mu])
        metrics["forget_quality"] = None
        if retrained is None:
            absent["forget_quality"] = "no retrained model (forget_quality=true makes one)"
        else:
            ours, theirs = log_ratios(scores["forget"]), log_ratios(retrained["forget"])
            if ours and theirs:
                metrics["forget_quality"] = forget_quality(ours, theirs)
            else:
                absent["forget_quality"] = "no perturbed answers"
        metrics["intervals"] = bootstrap_intervals({name: scores[name] for name in sets})
        if self.privacy:
            metrics["membership"] = membership(scores, retrained, absent)
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


def _likelihoods(row: Row, values: Iterator[AnswerScores], privacy: bool) -> dict[str, Any]:
    """What the likelihood pass says of a row; ``values`` are those of ``_answers(row)``."""
    own = next(values)
    greedy = own.greedy.tolist()

    def loss(scores: AnswerScores) -> float:
        return float(-scores.log_probabilities.mean())

    return {
        "loss": loss(own),
        "first_token_loss": float(-own.log_probabilities[0]),
        "answer_tokens": len(greedy),
        "paraphrased_loss": None if row.paraphrased_answer is None else loss(next(values)),
        "perturbed_losses": tuple(loss(next(values)) for _ in row.perturbed_answers),
        "exact_memorisation": exact_memorisation(greedy),
        "extraction_strength": extraction_strength(greedy),
        "membership": membership_scores(own, row.answer) if privacy else None,
    }


def membership_scores(scores: AnswerScores, answer: str) -> dict[str, float]:
    """Every attack's score of one answer; without a distribution there is no Min-K %++."""
    values = scores.log_probabilities.tolist()
    found = {
        "loss": loss_score(values),
        "zlib": zlib_score(values, answer),
        "min_k": lowest_mean(values),
    }
    if scores.standardised is not None:
        found["min_k_plus_plus"] = lowest_mean(scores.standardised.tolist())
    return found
