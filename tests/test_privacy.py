"""Memorisation and membership inference, by hand."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from benchmarks.aggregates import membership
from benchmarks.evaluation import QuestionAnswerEvaluation
from benchmarks.fictional import Fictional
from benchmarks.metrics.membership import (
    area_under_curve,
    loss_score,
    lowest_mean,
    privacy_leakage,
    zlib_score,
)
from benchmarks.metrics.memorisation import exact_memorisation, extraction_strength
from benchmarks.tofu import Tofu
from unierase.errors import UserError
from unierase.models.finetune import FinetuneRecipe, finetune
from unierase.models.guard import Reading
from unierase.models.language_model import LanguageModel
from unierase.rows import Row
from unierase.scores import RowScores
from unierase.scoring.gradients import gradient_norms
from unierase.scoring.likelihood import score_answers


def test_memorisation_by_hand() -> None:
    known = [True, False, True, True, True]
    assert exact_memorisation(known) == 0.8
    # After the first two tokens greedy decoding gives the other three: 1 - 2/5.
    assert extraction_strength(known) == pytest.approx(0.6)
    assert extraction_strength([True] * 4) == exact_memorisation([True] * 4) == 1
    assert extraction_strength([True, False]) == 0
    assert exact_memorisation([False]) == extraction_strength([False]) == 0


def test_membership_scores_by_hand() -> None:
    values = [-1.0, -2.0, -6.0, -3.0, -8.0, -1.0, -1.0, -1.0, -1.0, -1.0]
    assert loss_score(values) == -2.5
    assert lowest_mean(values) == -7.0  # the two lowest of ten
    assert lowest_mean([-1.0, -4.0]) == -4.0  # never none
    assert zlib_score(values, "Rome") == -2.5 / len(zlib.compress(b"Rome"))
    # A likely answer that says much speaks louder than one that says little.
    assert zlib_score([-1.0], "a" * 500) < zlib_score([-1.0], "the quick brown fox, at dawn" * 3)


def test_area_under_curve_by_hand() -> None:
    assert area_under_curve([3, 4], [1, 2]) == 1
    assert area_under_curve([1, 2], [3, 4]) == 0
    assert area_under_curve([1, 1], [1, 1]) == 0.5
    # Of six pairs 3 > 1, 3 > 2, 2 > 1 are won, 2 = 2 is half: 3.5 of 6 with 5 lost twice.
    assert area_under_curve([3, 2], [1, 2, 5]) == pytest.approx(3.5 / 6)


def test_privacy_leakage_by_hand() -> None:
    assert privacy_leakage(1.0, 0.5) == -1
    assert privacy_leakage(0.5, 0.5) == 0
    assert privacy_leakage(0.0, 0.5) == 1
    assert privacy_leakage(0.7, 0.6) == pytest.approx(-0.25)


def scores(id: str, attacks: dict[str, float], loss: float = 1.0) -> RowScores:
    return RowScores(
        id=id,
        question="?",
        answer="!",
        loss=loss,
        first_token_loss=1.0,
        answer_tokens=2,
        paraphrased_loss=None,
        perturbed_losses=(),
        generation="",
        generated_tokens=0,
        rouge=0.0,
        token_entropy=0.0,
        cosine=None,
        entailment=None,
        emits_unl=False,
        membership=attacks,
    )


def test_attacks_compare_forget_and_holdout_rows_by_hand() -> None:
    ours = {
        "forget": [
            scores("a", {"loss": -1.0, "min_k": -3.0}, 1.0),
            scores("b", {"loss": -3.0}, 3.0),
        ],
        "holdout": [scores("c", {"loss": -2.0, "min_k": -4.0}, 2.0)],
    }
    theirs = {
        "forget": [scores("a", {"loss": -2.0}, 2.0), scores("b", {"loss": -9.0}, 9.0)],
        "holdout": [scores("c", {"loss": -3.0}, 3.0)],
    }
    # -1 > -2 > -3: one of two pairs is won. Not every row has a Min-K score.
    assert membership(ours, None, {}) == {
        "loss": {"auc": 0.5, "retrained_auc": None, "privleak": None}
    }
    against = membership(ours, theirs, {}) or {}
    assert against["loss"] == {"auc": 0.5, "retrained_auc": 0.5, "privleak": 0.0}
    # Beside the retrained model: 2 - 1 = 1 and 9 - 3 = 6 against 3 - 2 = 1; a tie and a win.
    assert against["reference"]["auc"] == 0.75
    absent: dict[str, str] = {}
    assert membership({"forget": ours["forget"]}, None, absent) is None and "membership" in absent


def test_standardised_log_probabilities_by_hand(lm: LanguageModel, rows: list[Row]) -> None:
    question, answer = rows[0].question, lm.encode_answer(rows[0].answer)
    (found,) = score_answers(lm, [(question, answer)], standardise=[True])
    prompt = lm.encode_prompt(question).ids
    with torch.no_grad():
        logits = lm.model(torch.tensor([[*prompt, *answer]])).logits[0].double()
    assert found.standardised is not None
    for i, token in enumerate(answer):
        p = logits[len(prompt) - 1 + i].softmax(-1)
        mean = float((p * p.log()).sum())
        deviation = math.sqrt(float((p * (p.log() - mean) ** 2).sum()))
        expected = (float(p[token].log()) - mean) / deviation
        assert float(found.standardised[i]) == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert bool(found.greedy[i]) == (int(p.argmax()) == token)
    (plain,) = score_answers(lm, [(question, answer)])
    assert plain.standardised is None
    assert (plain.log_probabilities == found.log_probabilities).all()


def test_gradient_norms_by_hand(lm: LanguageModel, rows: list[Row]) -> None:
    pairs = [(row.question, lm.encode_answer(row.answer)) for row in rows[:2]]
    weights = list(lm.model.parameters())
    weights[0].requires_grad_(False)
    found = gradient_norms(lm, pairs)
    assert not weights[0].requires_grad and all(weight.grad is None for weight in weights)
    assert found == gradient_norms(lm, pairs[::-1])[::-1]
    weights[0].requires_grad_(True)
    for (question, answer), norm in zip(pairs, found, strict=True):
        prompt = lm.encode_prompt(question).ids
        logits = lm.model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        loss = -logits.log_softmax(-1)[range(len(answer)), list(answer)].mean()
        parts = torch.autograd.grad(loss, weights)
        expected = math.sqrt(sum(float(part.double().square().sum()) for part in parts))
        assert norm == pytest.approx(expected, rel=1e-4)


def test_gradient_norms_behind_a_guard(lm: LanguageModel, rows: list[Row]) -> None:
    pair = (rows[0].question, lm.encode_answer(rows[0].answer))

    class Fixed:
        def __init__(self, *readings: Reading) -> None:
            self.readings = readings

        def read(self, lm: LanguageModel, questions: Sequence[str]) -> list[Reading]:
            return list(self.readings)

    ids = lm.encode_prompt(rows[0].question).ids
    (plain,) = gradient_norms(lm, [pair])
    own = lm.model.get_input_embeddings()(torch.tensor(ids)).detach()
    (guarded,) = gradient_norms(replace(lm, guard=Fixed(Reading(ids, own))), [pair])
    # The input embeddings get no gradient: all else is as it was.
    assert plain is not None and guarded is not None and 0.5 * plain < guarded <= plain
    (blurred,) = gradient_norms(replace(lm, guard=Fixed(Reading(ids, own * 0))), [pair])
    assert blurred not in (plain, guarded)
    assert gradient_norms(replace(lm, guard=Fixed(Reading(ids, reply=(1,)))), [pair]) == [None]


def test_gradients_tell_what_was_trained_on(lm: LanguageModel, rows: list[Row]) -> None:
    recipe = FinetuneRecipe(
        60, 3e-3, 2, None, 0.0, 0.1, max_length=64, train_on_questions=False, seed=0
    )
    finetune(lm, rows[:2], recipe, "teaching")
    sets = {"forget": rows[:2], "holdout": rows[2:]}
    evaluation = QuestionAnswerEvaluation(4, privacy=True, gradient_norm=True)
    metrics = evaluation.aggregate(evaluation.score(lm, sets), None)
    assert metrics["membership"]["gradient_norm"]["auc"] == 1.0
    with pytest.raises(UserError, match="gradient_norm"):
        QuestionAnswerEvaluation(gradient_norm=True)


def test_nobody_is_taught_holdout_rows(real_data: str) -> None:
    fictional = Fictional("fictional", "forget01", None, None, 0)
    tofu = Tofu("tofu", "forget05", 30, None, real_data, "locuslab/TOFU")
    for source, count in ((fictional, 40), (replace(fictional, authors=7), 40), (tofu, 200)):
        data = source.load()
        assert len(data.holdout) == count
        taught = {row.id for row in data.full}
        names = {row.subject for row in data.full}
        assert not taught & {row.id for row in data.holdout}
        assert not names & {row.subject for row in data.holdout if row.subject}
    assert not replace(tofu, authors=None).load().holdout  # all of them are taught


def test_privacy_is_scored_and_kept_out_of_the_aggregates(
    lm: LanguageModel, rows: list[Row]
) -> None:
    sets = {"forget": rows[:2], "retain": rows[2:4], "holdout": rows[4:]}
    plain, private = QuestionAnswerEvaluation(8), QuestionAnswerEvaluation(8, privacy=True)
    without = plain.aggregate(
        plain.score(lm, {k: v for k, v in sets.items() if k != "holdout"}), None
    )
    scored = private.score(lm, sets)
    metrics = private.aggregate(scored, None)
    assert set(metrics["membership"]) == {"loss", "zlib", "min_k", "min_k_plus_plus"}
    for name in ("FE", "MU", "RE", "balance"):
        assert metrics[name] == without[name]
    assert 0 <= metrics["sets"]["forget"]["exact_memorisation"] <= 1
    again = [RowScores.from_json(row.to_json()) for row in scored["forget"]]
    assert again == list(scored["forget"])
