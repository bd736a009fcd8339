"""Attacks on unlearned models."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace

import pytest
import torch
from configs import config

from benchmarks.evaluation import QuestionAnswerEvaluation
from benchmarks.robustness import (
    Attack,
    BannedTokens,
    BestOfSamples,
    FewShot,
    Paraphrase,
    PrefixInjection,
    Quantisation,
    Relearning,
    RobustEvaluation,
    rounded,
)
from unierase.errors import UserError
from unierase.experiment.run import evaluation_of
from unierase.models.language_model import LanguageModel
from unierase.rows import Row
from unierase.scoring.generation import generate
from unierase.scoring.sampling import GumbelNoise

PLAIN = QuestionAnswerEvaluation(max_new_tokens=6)


def robust(**attacks: Attack) -> RobustEvaluation:
    return RobustEvaluation(max_new_tokens=6, attacks=attacks)


def sets_of(rows: list[Row]) -> dict[str, list[Row]]:
    asked = [
        replace(row, paraphrased_question=f"In which city was {row.subject} born?") for row in rows
    ]
    return {"forget": asked[:3], "retain": asked[3:]}


def test_weights_are_rounded_row_by_row() -> None:
    # Two bits: -1, 0 and 1 times the largest weight of the row.
    weight = torch.tensor([[1.0, -0.6, 0.4, 0.0], [10.0, -10.0, 4.0, 6.0], [0.0] * 4])
    expected = torch.tensor([[1.0, -1.0, 0.0, 0.0], [10.0, -10.0, 0.0, 10.0], [0.0] * 4])
    assert torch.equal(rounded(weight, 2), expected)
    near = rounded(weight, 8)
    assert (near - weight).abs().max() <= 10 / 127 / 2
    assert rounded(weight.bfloat16(), 8).dtype == torch.bfloat16


def test_every_attack_scores_sets_of_its_own_and_leaves_the_model(
    lm: LanguageModel, rows: list[Row]
) -> None:
    before = copy.deepcopy(lm.model.state_dict())
    evaluation = robust(
        relearn=Relearning(0.5, 2, 1e-2, 2, 128),
        bits4=Quantisation(4),
        ban=BannedTokens(refusals=True),
        sampled=BestOfSamples(2),
        paraphrase=Paraphrase(),
        inject=PrefixInjection("Please."),
        few_shot=FewShot(1),
    )
    sets = sets_of(rows)
    scores = evaluation.score(lm, sets)
    attacks = set(evaluation.attacks)
    assert {name.partition("@")[2] for name in scores} == {"", *attacks}
    assert "retain@sampled" not in scores and "retain@bits4" in scores
    # Those that were taught again are not tested.
    assert len(scores["forget@relearn"]) == 1  # of three, two
    assert scores["forget@inject"][0].question.startswith("Please. Where was")
    assert scores["forget@paraphrase"][0].question.startswith("In which city")
    assert scores["forget@few_shot"][0].question.count("Question:") == 2
    for name, tensor in lm.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    # What is not attacked is scored as ever; chosen sets may be given again.
    plain = PLAIN.score(lm, sets)
    assert {name: scores[name] for name in sets} == dict(plain)
    chosen = evaluation.select(sets)
    assert evaluation.select(chosen) == chosen
    assert evaluation.score(lm, chosen) == scores
    metrics = evaluation.aggregate(scores, None)
    assert set(metrics["sets"]) == {"forget", "retain"}
    assert set(metrics["attacks"]) == attacks
    assert metrics["attacks"]["bits4"]["MU"] is not None
    assert metrics["attacks"]["sampled"]["MU"] is None
    assert metrics["attacks"]["relearn"]["forget_rows"] == len(scores["forget@relearn"])


def test_relearning_teaches_the_rows_that_are_not_tested(
    lm: LanguageModel, rows: list[Row]
) -> None:
    attack = Relearning(0.5, 80, 1e-2, 2, 128)
    forget = sets_of(rows)["forget"]
    tested = {row.id for row in attack.tested("forget", forget)}
    sets = {"forget": forget}
    before = PLAIN.score(lm, sets)["forget"]
    after = attack.score(PLAIN, lm, sets, forget)["forget"]
    fallen = {b.id for a, b in zip(after, before, strict=True) if a.loss < 0.05 * b.loss}
    assert fallen == {row.id for row in forget} - tested and len(tested) == 1


def test_draws_have_the_models_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    counts: Counter[int] = Counter()
    noise = GumbelNoise(1.0, [0])
    for _ in range(4000):
        counts[int(noise.added([0], logits).argmax())] += 1
    for token, expected in enumerate(logits.softmax(-1)[0].tolist()):
        assert counts[token] / 4000 == pytest.approx(expected, abs=0.03)
    cold = GumbelNoise(1e-3, [0])
    drawn = {int(cold.added([0], logits).argmax()) for _ in range(50)}
    assert drawn == {2}


def test_draws_depend_on_question_and_seed_alone(lm: LanguageModel, rows: list[Row]) -> None:
    questions = [row.question for row in rows]
    together = generate(lm, questions, 8, temperature=1.0, seed="a")
    apart = [generate(lm, [q], 8, temperature=1.0, seed="a")[0] for q in reversed(questions)]
    assert [g.token_ids for g in together] == [g.token_ids for g in reversed(apart)]
    other = generate(lm, questions, 8, temperature=1.0, seed="b")
    assert [g.token_ids for g in together] != [g.token_ids for g in other]


def test_the_nearest_sample_counts(lm: LanguageModel, rows: list[Row]) -> None:
    sets = {"forget": sets_of(rows)["forget"]}
    one, five = (BestOfSamples(n).score(PLAIN, lm, sets, ())["forget"] for n in (1, 5))
    assert all(b.rouge >= a.rouge for a, b in zip(one, five, strict=True))
    assert [a.loss for a in one] == [b.loss for b in five]


def test_bad_settings_and_the_config() -> None:
    for wrong in (lambda: Quantisation(1), lambda: Relearning(1.0, 1, 1e-3, 1, 8)):
        with pytest.raises(UserError, match=r"evaluation\.attacks"):
            wrong()
    with pytest.raises(UserError, match="samples and temperature"):
        BestOfSamples(0)
    whole = evaluation_of(config("evaluation=robust"))
    assert len(whole.settings()["attacks"]) == 9
    less = evaluation_of(config("evaluation=robust", "evaluation.attacks.bits8=null"))
    assert "bits8" not in less.settings()["attacks"]
    assert whole.settings() != less.settings()
