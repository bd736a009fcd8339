"""Every metric against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.aggregates import set_metrics
from benchmarks.evaluation import QuestionAnswerEvaluation, limited
from benchmarks.intervals import bootstrap_intervals
from benchmarks.metrics.aggregate import forget_quality, harmonic_mean, mean
from benchmarks.metrics.likelihood import (
    log_truth_ratio,
    normalised_probability,
    probability,
    truth_ratio_forget,
    truth_ratio_other,
)
from benchmarks.metrics.text import rouge_l_recall, token_entropy
from unierase.rows import Row
from unierase.scores import RowScores

BASE = RowScores(
    id="a",
    question="q",
    answer="one two",
    loss=math.log(2),
    first_token_loss=math.log(4),
    answer_tokens=3,
    paraphrased_loss=1.0,
    perturbed_losses=(2.0, 4.0),
    generation="one two",
    generated_tokens=2,
    rouge=1.0,
    token_entropy=1.0,
    cosine=None,
    entailment=None,
    emits_unl=False,
)


def test_probability() -> None:
    assert probability(math.log(4)) == pytest.approx(0.25)
    assert probability(1e9) == 0.0


def test_normalised_probability() -> None:
    # p = 1/2 against 1/4 and 1/4: 0.5 / (0.5 + 0.5)
    assert normalised_probability(math.log(2), [math.log(4)] * 2) == pytest.approx(0.5)
    # Losses far beyond what exp can hold.
    assert normalised_probability(2000.0, [2000.0]) == pytest.approx(0.5)
    assert normalised_probability(2000.0, [0.0]) == pytest.approx(0.0)


def test_truth_ratio() -> None:
    # R = exp(mean(2, 4) - 1) = exp(2)
    assert log_truth_ratio(1.0, [2.0, 4.0]) == pytest.approx(2.0)
    assert truth_ratio_forget(2.0) == truth_ratio_forget(-2.0) == pytest.approx(math.exp(-2))
    assert truth_ratio_other(2.0) == pytest.approx(1 - math.exp(-2))
    assert truth_ratio_other(-2.0) == 0.0
    assert truth_ratio_other(-5000.0) == 0.0


def test_rouge_l_recall() -> None:
    # "the cat" of "the cat sat": 2 of 3 words in order.
    values = rouge_l_recall(["the cat sat"] * 3, ["the cat", "", "the cat sat on a mat"])
    assert values == pytest.approx([2 / 3, 0.0, 1.0])


def test_token_entropy() -> None:
    assert token_entropy([]) == token_entropy([7]) == 0.0
    assert token_entropy([1, 2, 3, 4]) == pytest.approx(1.0)
    assert token_entropy([5] * 9) == 0.0
    # Frequencies 1/2, 1/4, 1/4: 1.5 bits of log2 4 = 2.
    assert token_entropy([1, 1, 2, 3]) == pytest.approx(0.75)


def test_means() -> None:
    assert mean([1.0, 2.0]) == 1.5
    assert harmonic_mean([1.0, 0.5]) == pytest.approx(2 / 3)
    assert harmonic_mean([1.0, 0.0]) == 0.0
    with pytest.raises(ValueError):
        mean([])


def test_forget_quality() -> None:
    same = [0.1, 0.2, 0.3, 0.4]
    assert forget_quality(same, same) == pytest.approx(1.0)
    # Two groups of four without overlap: p = 2 / C(8, 4).
    assert forget_quality(same, [1.0, 2.0, 3.0, 4.0]) == pytest.approx(2 / 70)
    # R and 1/R are not the same: the test must see R itself.
    assert forget_quality([1.0, 2.0, 3.0, 4.0], [-1.0, -2.0, -3.0, -4.0]) == pytest.approx(2 / 70)


def test_set_metrics() -> None:
    other = replace(BASE, id="b", rouge=0.0, emits_unl=True)
    forget = set_metrics("forget", [BASE, other])
    assert forget["rows"] == 2
    assert forget["probability"] == pytest.approx(0.5)
    assert forget["first_token_probability"] == pytest.approx(0.25)
    # 3 tokens lose 3 log 2, the first log 4 of it: log 2 over the other two.
    assert forget["rest_probability"] == pytest.approx(2**-0.5)
    assert set_metrics("forget", [replace(BASE, answer_tokens=1)])["rest_probability"] is None
    assert forget["banned_rouge"] is None
    banned = [replace(BASE, banned_rouge=0.25), replace(BASE, banned_rouge=0.75)]
    assert set_metrics("forget", banned)["banned_rouge"] == 0.5
    assert forget["rouge"] == forget["emits_unl"] == 0.5
    # R = exp(2): min(R, 1/R) = exp(-2).
    assert forget["tofu_truth_ratio"] == pytest.approx(math.exp(-2))
    assert forget["truth_ratio"] == pytest.approx(1 - math.exp(-2))
    assert forget["cosine"] is None
    retain = set_metrics("retain", [BASE])
    assert retain["truth_ratio"] == pytest.approx(1 - math.exp(-2))
    options = set_metrics("world_facts", [replace(BASE, perturbed_losses=(math.log(2),))])
    assert options["probability"] == pytest.approx(0.5)


def test_rows_without_perturbed_answers_have_no_truth_ratio() -> None:
    bare = replace(BASE, perturbed_losses=(), paraphrased_loss=None)
    assert set_metrics("retain", [bare])["truth_ratio"] is None
    # A row that has them counts alone.
    assert set_metrics("retain", [bare, BASE])["truth_ratio"] == pytest.approx(1 - math.exp(-2))


def test_aggregates() -> None:
    forget = replace(BASE, loss=math.log(4), rouge=0.25)
    metrics = QuestionAnswerEvaluation().aggregate(
        {"forget": [forget], "retain": [BASE], "earlier": [forget]}, None
    )
    truth = 1 - math.exp(-2)
    # FE = 1 - mean(probability 1/4, ROUGE 1/4, truth ratio)
    assert metrics["FE"] == pytest.approx(1 - (0.25 + 0.25 + truth) / 3)
    assert metrics["FE_earlier"] == metrics["FE"]
    assert (metrics["FE_scores"], metrics["FE_scores_full"]) == (3, 5)
    # RE = MU = harmonic mean of probability 1/2, ROUGE 1, truth ratio, entropy 1
    retained = 4 / (2 + 1 + 1 / truth + 1)
    assert metrics["RE"] == metrics["MU"] == pytest.approx(retained)
    assert (metrics["MU_scores"], metrics["MU_scores_full"]) == (4, 6)
    assert metrics["balance"] == pytest.approx(2 / (1 / metrics["FE"] + 1 / retained))
    assert metrics["model_utility"] is None
    assert {"model_utility", "forget_quality", "cosine", "entailment"} <= set(metrics["absent"])


def test_model_utility() -> None:
    sets = {name: [BASE] for name in ("forget", "retain", "real_authors", "world_facts")}
    truth = 1 - math.exp(-2)
    option = 0.5 / (0.5 + math.exp(-2) + math.exp(-4))
    inverse = (2 + 2 / option) + 3 + 3 / truth
    metrics = QuestionAnswerEvaluation().aggregate(sets, sets)
    assert metrics["model_utility"] == pytest.approx(9 / inverse)
    assert metrics["forget_quality"] == pytest.approx(1.0)


def test_a_model_that_says_nothing() -> None:
    silent = replace(
        BASE, loss=60.0, generation="", generated_tokens=0, rouge=0.0, token_entropy=0.0
    )
    metrics = QuestionAnswerEvaluation().aggregate({"forget": [silent], "retain": [silent]}, None)
    assert metrics["MU"] == 0.0 and metrics["balance"] == 0.0
    assert 0.0 < metrics["FE"] <= 1.0


def test_limit_takes_the_same_rows_in_any_order() -> None:
    rows = [Row(f"r{i}", "q", "a", "g") for i in range(50)]
    chosen = {row.id for row in limited(rows, 10)}
    assert len(chosen) == 10
    assert chosen == {row.id for row in limited(rows[::-1], 10)}
    assert chosen != {row.id for row in rows[:10]}
    assert limited(limited(rows, 10), 10) == limited(rows, 10)


def test_bootstrap_intervals() -> None:
    def rows(*rouge: float) -> list[RowScores]:
        return [replace(BASE, id=str(i), rouge=value) for i, value in enumerate(rouge)]

    # Rows that are all alike cannot move anything.
    same = bootstrap_intervals({"forget": rows(0.5, 0.5, 0.5), "retain": rows(0.25, 0.25)})
    assert same is not None
    assert same["sets"]["forget"]["rouge"] == [0.5, 0.5]
    metrics = QuestionAnswerEvaluation().aggregate(
        {"forget": rows(0.5, 0.5, 0.5), "retain": rows(0.25, 0.25)}, None
    )
    for name in ("FE", "MU", "balance"):
        assert same[name] == pytest.approx([metrics[name]] * 2)
    # Of two rows at 0 and 1 a draw has the mean 0, 1/2 or 1: with 1/4, 1/2, 1/4.
    two = bootstrap_intervals({"forget": rows(0.0, 1.0)})
    assert two is not None and two["sets"]["forget"]["rouge"] == [0.0, 1.0]
    # A hundred such rows: 0.5 +- 1.96 sqrt(0.25 / 100).
    many = bootstrap_intervals({"forget": rows(*[0.0, 1.0] * 50)})
    assert many is not None
    assert many["sets"]["forget"]["rouge"] == pytest.approx([0.402, 0.598], abs=0.02)
    assert many == bootstrap_intervals({"forget": rows(*[0.0, 1.0] * 50)})
    assert bootstrap_intervals({"forget": rows(0.0)}) is None
    assert "cosine" not in many["sets"]["forget"]


def test_intervals_take_the_rows_that_have_a_truth_ratio() -> None:
    plain = replace(BASE, id="b", perturbed_losses=())
    found = bootstrap_intervals({"retain": [BASE, plain, BASE]})
    assert found is not None
    ratio = set_metrics("retain", [BASE])["truth_ratio"]
    assert found["sets"]["retain"]["truth_ratio"] == pytest.approx([ratio, ratio])
