"""What every metric says of models that know everything, say nothing, always refuse or babble."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from benchmarks.aggregates import OPTION_SETS
from benchmarks.evaluation import QuestionAnswerEvaluation
from benchmarks.metrics.likelihood import (
    log_truth_ratio,
    probability,
    truth_ratio_forget,
    truth_ratio_other,
)
from benchmarks.metrics.memorisation import exact_memorisation, extraction_strength
from benchmarks.metrics.text import rouge_l_recall, token_entropy
from unierase.models.guard import Reading
from unierase.models.language_model import LanguageModel
from unierase.rows import Row

REFUSAL = "I do not know."
SETS = ("forget", "retain", "real_authors", "world_facts", "holdout")


@dataclass(frozen=True)
class Says:
    """A model that gives the same reply to everything, or to each question its own."""

    reply: str | Mapping[str, str]

    def read(self, lm: LanguageModel, questions: Sequence[str]) -> list[Reading]:
        return [
            Reading(
                lm.encode_prompt(question).ids,
                reply=tuple(lm.tokenizer.encode(self._to(question), add_special_tokens=False)),
            )
            for question in questions
        ]

    def _to(self, question: str) -> str:
        return self.reply if isinstance(self.reply, str) else self.reply[question]


def measured(lm: LanguageModel, rows: Sequence[Row]) -> dict[str, Any]:
    """All metrics of ``lm``, each set being one row, those of the retrained model its own."""
    sets = {name: [row] for name, row in zip(SETS, rows, strict=True)}
    evaluation = QuestionAnswerEvaluation(
        16, privacy=True, over_forgetting=True, refusals=(REFUSAL,), ban_unlearning_tokens=True
    )
    scores = evaluation.score(lm, sets)
    return dict(evaluation.aggregate(scores, scores))


def numbers(values: Any) -> Iterator[float]:
    if isinstance(values, Mapping):
        for value in values.values():
            yield from numbers(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from numbers(value)
    elif isinstance(values, (int, float)):
        yield float(values)


SHARES = (
    "probability",
    "rouge",
    "truth_ratio",
    "token_entropy",
    "emits_unl",
    "refusal",
    "exact_memorisation",
    "extraction_strength",
    "first_token_probability",
    "rest_probability",
    "banned_rouge",
)


def assert_sane(metrics: Mapping[str, Any]) -> None:
    assert all(math.isfinite(number) for number in numbers(metrics))
    for scores in metrics["sets"].values():
        for name in SHARES:
            assert scores[name] is None or 0 <= scores[name] <= 1 + 1e-9, name
    for name in ("FE", "RE", "MU", "balance", "model_utility", "forget_quality"):
        assert 0 <= metrics[name] <= 1 + 1e-9, name


def test_a_model_that_knows_everything(lm: LanguageModel, rows: list[Row]) -> None:
    answers = {row.question: row.answer for row in rows}
    metrics = measured(replace(lm, guard=Says(answers)), rows)
    assert_sane(metrics)
    for name in SETS:
        scores = metrics["sets"][name]
        for best in ("probability", "rouge", "first_token_probability", "rest_probability"):
            assert scores[best] == pytest.approx(1, abs=1e-4), best
        assert scores["exact_memorisation"] == 1 and scores["extraction_strength"] > 0.8
        assert scores["emits_unl"] == scores["refusal"] == 0
    # Two of FE's three scores are 1. The third compares paraphrases of right and wrong answers,
    # which a reply to the letter makes equally unlikely.
    assert metrics["FE"] == pytest.approx(1 / 3, abs=1e-3)
    assert metrics["sets"]["forget"]["banned_rouge"] == 1
    assert metrics["forget_quality"] == 1  # it is its own yardstick
    assert metrics["membership"]["loss"]["auc"] == 0.5


@pytest.mark.parametrize("reply", ["", REFUSAL, "the the the the the the", "."])
def test_a_model_that_always_says_the_same(reply: str, lm: LanguageModel, rows: list[Row]) -> None:
    metrics = measured(replace(lm, guard=Says(reply)), rows)
    assert_sane(metrics)
    for name in SETS:
        scores = metrics["sets"][name]
        assert scores["refusal"] == float(reply == REFUSAL)
        # None of it is in the answers.
        assert scores["rouge"] == scores["extraction_strength"] == 0
        assert scores["exact_memorisation"] < 0.5
        # Where a probability is one among options, the five are about as unlikely.
        assert scores["probability"] < (0.6 if name in OPTION_SETS else 0.05)
    retain = metrics["sets"]["retain"]
    if reply in ("", "."):
        # One token has no variety, silence none either: a harmonic mean of 0.
        assert retain["token_entropy"] == metrics["MU"] == metrics["balance"] == 0
    else:
        assert 0.4 < retain["token_entropy"] <= 1
        assert metrics["MU"] < 0.1
    # What is forgotten entirely: probability and ROUGE-L are gone; the truth ratio says that
    # right and wrong answers are about as unlikely.
    assert metrics["FE"] > 2 / 3 - 1e-2


def test_a_model_that_babbles(lm: LanguageModel, rows: list[Row]) -> None:
    metrics = measured(lm, rows)  # random weights
    assert_sane(metrics)
    chance = 1 / len(lm.tokenizer)
    for name in SETS:
        scores = metrics["sets"][name]
        expected = 1 / 5 if name in OPTION_SETS else chance
        assert scores["probability"] == pytest.approx(expected, rel=0.5)
        assert scores["rouge"] < 0.2 and scores["refusal"] == 0
        assert scores["exact_memorisation"] < 0.2 and scores["extraction_strength"] < 0.2
    # Answers and wrong answers are about as likely: R is about 1.
    assert metrics["sets"]["forget"]["tofu_truth_ratio"] > 0.8
    assert metrics["sets"]["retain"]["truth_ratio"] < 0.2


def test_answers_of_one_token(lm: LanguageModel, rows: list[Row]) -> None:
    """The answer's only token is its first: nothing comes after it but what closes it."""
    short = [replace(row, answer="R", paraphrased_answer="R") for row in rows]
    assert len(lm.tokenizer.encode("R")) == 1
    for model in (lm, replace(lm, guard=Says("R"))):
        assert_sane(measured(model, short))
    assert measured(replace(lm, guard=Says("R")), short)["sets"]["forget"]["rouge"] == 1


def test_empty_references_and_texts() -> None:
    assert rouge_l_recall(["", "Rome", ""], ["Rome", "", ""]) == [0, 0, 0]
    assert token_entropy([]) == token_entropy([7]) == token_entropy([7, 7, 7]) == 0
    assert exact_memorisation([True]) == 1 and exact_memorisation([False]) == 0
    assert extraction_strength([True]) == 1 and extraction_strength([False]) == 0


def test_losses_beyond_what_floats_hold() -> None:
    assert probability(1e4) == 0 and probability(0.0) == 1
    for own, wrong in ((0.0, 1e4), (1e4, 0.0), (1e4, 1e4)):
        ratio = log_truth_ratio(own, [wrong] * 5)
        for score in (truth_ratio_forget(ratio), truth_ratio_other(ratio)):
            assert 0 <= score <= 1
