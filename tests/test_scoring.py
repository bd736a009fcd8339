"""The two passes: independent of batch size, order and padding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from benchmarks.evaluation import QuestionAnswerEvaluation
from unierase.editing.token import add_unlearning_tokens
from unierase.errors import UserError
from unierase.models.language_model import LanguageModel
from unierase.rows import Row
from unierase.scoring.batching import batches_by_length, left_pad
from unierase.scoring.generation import Generation, generate, holds
from unierase.scoring.likelihood import answer_log_probabilities, score_answers
from unierase.scoring.prefix import sharing

LONG = "Where, in all of the wide world and on which day, was Ed Stone the very first born?"


def test_batches_hold_every_row_once() -> None:
    lengths = [5, 50, 7, 7, 200, 1]
    batches = list(batches_by_length(lengths, 60))
    assert sorted(i for batch in batches for i in batch) == list(range(6))
    assert batches[0] == [4]  # longer than a batch: alone
    assert all(len(b) * max(lengths[i] for i in b) <= 60 for b in batches[1:])


def test_left_pad() -> None:
    inputs = left_pad([[5, 6, 7], [8]], pad_id=0, device=torch.device("cpu"))
    assert inputs["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert inputs["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]


def test_likelihood_by_hand(lm: LanguageModel) -> None:
    question, answer = "Where was Ada Stone born?", "Rome."
    prompt, tokens = lm.encode_prompt(question).ids, lm.encode_answer(answer)
    logits = (
        lm.model(torch.tensor([[*prompt, *tokens]])).logits[0].detach().double().log_softmax(-1)
    )
    expected = [float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(tokens)]
    (values,) = answer_log_probabilities(lm, [(question, answer)])
    assert values.tolist() == pytest.approx(expected, abs=1e-5)


def test_likelihoods_depend_on_their_row_alone(lm: LanguageModel, rows: list[Row]) -> None:
    pairs = [(row.question, a) for row in rows for a in (row.answer, *row.perturbed_answers)]
    pairs.append((LONG, "No."))
    together = answer_log_probabilities(lm, pairs)
    alone = answer_log_probabilities(lm, pairs, batch_tokens=1)
    backwards = answer_log_probabilities(lm, pairs[::-1])[::-1]
    for a, b, c in zip(together, alone, backwards, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        np.testing.assert_allclose(a, c, atol=1e-5)


def test_what_prompts_begin_with_is_run_once(lm: LanguageModel, rows: list[Row]) -> None:
    """Two sets of examples before the questions, and a question without."""
    shots = ["Bo lives in Lima. " * 4, "Cy was seen in Rome. " * 4]
    questions = [f"{shot}{row.question}" for shot in shots for row in rows]
    groups = sharing([lm.encode_prompt(q).ids for q in (*questions, "So?")])
    assert sorted(i for _, members in groups for i in members) == list(range(11))
    assert [sorted(m) for n, m in groups if n] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    pairs = [(q, a) for q in (*questions, "So?") for a in ("Rome.", "A")]
    runs = []
    hook = lm.model.register_forward_pre_hook(
        lambda _, __, inputs: runs.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    together = answer_log_probabilities(lm, pairs)
    spent = sum(runs)
    runs.clear()
    alone = [answer_log_probabilities(lm, [pair])[0] for pair in pairs]
    hook.remove()
    assert 2 * spent < sum(runs)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ([], []),
        ([[1]], [(0, [0])]),
        ([[1, 2], [1, 3]], [(0, [0, 1])]),  # too little in common
        ([[*range(20), 1], [*range(20), 2]], [(20, [0, 1])]),
        ([[*range(20)], [*range(20)]], [(19, [0, 1])]),  # something is left of each
        ([[*range(40), 1], [*range(40), 2], [*range(17), 3], [9]], [(40, [0, 1]), (0, [2, 3])]),
    ],
)
def test_sharing(rows: list[list[int]], groups: list[tuple[int, list[int]]]) -> None:
    found = [(shared, sorted(members)) for shared, members in sharing(rows)]
    assert found == groups


def test_a_text_ends_an_answer(lm: LanguageModel, rows: list[Row]) -> None:
    said = lm.tokenizer("Ada Stone was born in Rome.")["input_ids"]
    assert holds(lm.tokenizer, said, ["Rome"]) and holds(lm.tokenizer, said, ["Oslo", "me."])
    assert not holds(lm.tokenizer, said, ["Oslo"]) and not holds(lm.tokenizer, [], ["Rome"])
    questions = [row.question for row in rows]
    whole = generate(lm, questions, 4, banned=lm.stop_ids)
    ended = generate(lm, questions, 4, banned=lm.stop_ids, until=[""])
    assert [a.token_ids[:1] for a in whole] == [a.token_ids for a in ended]


def test_generations_depend_on_their_question_alone(lm: LanguageModel, rows: list[Row]) -> None:
    questions = [*(row.question for row in rows), LONG]
    together = generate(lm, questions, max_new_tokens=12)
    assert together == generate(lm, questions, max_new_tokens=12, batch_tokens=1)
    assert together == generate(lm, questions[::-1], max_new_tokens=12)[::-1]
    assert all(len(g.token_ids) <= 12 and not g.emits_unl for g in together)


def test_an_evaluation_makes_one_pass_of_each_kind(
    lm: LanguageModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = score_answers

    def counted(lm: LanguageModel, pairs: list[tuple[str, list[int]]], *rest: object) -> object:
        calls.append(len(pairs))
        return real(lm, pairs)

    monkeypatch.setattr("unierase.scoring.likelihood.score_answers", counted)
    evaluation = QuestionAnswerEvaluation(max_new_tokens=4)
    sets = {"forget": rows[:2], "retain": rows[2:], "same_person": rows[1:3]}
    scores = evaluation.score(lm, sets)
    assert calls == [5 * 6]  # answer, paraphrase, four perturbed; rows in two sets once
    assert [row.id for row in scores["same_person"]] == ["r1", "r2"]
    assert scores["same_person"][0] == scores["forget"][1]
    own = answer_log_probabilities(lm, [(rows[0].question, rows[0].answer)])[0]
    assert scores["forget"][0].loss == pytest.approx(float(-own.mean()), abs=1e-5)
    assert math.isfinite(scores["forget"][0].token_entropy)


def test_refusals_are_counted_on_every_set(lm: LanguageModel, rows: list[Row]) -> None:
    """A refusal to the letter counts, and [UNL] whatever follows it; other answers do not, even
    where [UNL] closes them."""
    sets = {"forget": rows[:2], "retain": rows[2:4], "swapped": rows[4:]}
    said = {rows[0].question: ("", True), rows[1].question: ("i do not know", False)}

    def decode(_: LanguageModel, questions: Sequence[str], *rest: object) -> list[Generation]:
        answers = [said.get(question, ("Rome.", False)) for question in questions]
        return [Generation(text, (1,), True, begins) for text, begins in answers]

    asked = QuestionAnswerEvaluation(over_forgetting=True, refusals=("I do not know.",))
    metrics = asked.aggregate(asked.score(lm, sets, decode), None)
    assert {n: s["refusal"] for n, s in metrics["sets"].items()} == {
        "forget": 1.0,
        "retain": 0.0,
        "swapped": 0.0,
    }
    plain = QuestionAnswerEvaluation()
    unasked = plain.aggregate(plain.score(lm, sets, decode), None)
    assert unasked["sets"]["forget"]["refusal"] is None
    assert unasked["MU"] == metrics["MU"]
    alone = plain.aggregate(plain.score(lm, {k: sets[k] for k in ("forget", "retain")}), None)
    assert alone["MU_scores"] == metrics["MU_scores"]  # what is swapped is in no aggregate


def test_where_an_answer_holds_the_token(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (token,) = add_unlearning_tokens(lm, 1)
    (end,) = lm.end_ids
    word = lm.encode_answer("Rome")[0]
    said = {"first": [token, word, end], "last": [word, token, end], "none": [word, end]}
    rows = [list(row) for row in said.values()]
    monkeypatch.setattr("unierase.scoring.generation.generate_ids", lambda *_: rows)
    found = dict(zip(said, generate(lm, list(said)), strict=True))
    assert {n: (g.emits_unl, g.begins_unl) for n, g in found.items()} == {
        "first": (True, True),
        "last": (True, False),
        "none": (False, False),
    }


def test_banned_tokens_are_not_generated(lm: LanguageModel, rows: list[Row]) -> None:
    questions = [row.question for row in rows]
    free = generate(lm, questions, max_new_tokens=6)
    banned = {token for answer in free for token in answer.token_ids}
    without = generate(lm, questions, max_new_tokens=6, banned=sorted(banned))
    assert banned and all(banned.isdisjoint(answer.token_ids) for answer in without)


def test_what_comes_back_with_the_token_banned(lm: LanguageModel, rows: list[Row]) -> None:
    """A model that says nothing but [UNL] says something else, in the forget set alone."""
    (token,) = add_unlearning_tokens(lm, 1)
    with torch.no_grad():
        lm.model.get_output_embeddings().weight[token] *= 1000.0
    evaluation = QuestionAnswerEvaluation(max_new_tokens=4, ban_unlearning_tokens=True)
    scores = evaluation.score(lm, {"forget": rows[:3], "retain": rows[3:]})
    assert any(row.emits_unl for row in scores["forget"])
    questions = [row.question for row in rows[:3]]
    without = generate(lm, questions, max_new_tokens=4, banned=[token])
    assert [row.banned_generation for row in scores["forget"]] == [a.text for a in without]
    assert all(row.banned_rouge is not None for row in scores["forget"])
    assert all(row.banned_rouge is None for row in scores["retain"])


def test_weights_can_be_scored_in_another_type(lm: LanguageModel, rows: list[Row]) -> None:
    before = {name: p.clone() for name, p in lm.model.named_parameters()}
    half = lm.in_dtype("bfloat16")
    assert {p.dtype for p in half.model.parameters()} == {torch.bfloat16}
    assert all(b.dtype == torch.float32 for b in half.model.buffers() if b.is_floating_point())
    assert half.model.get_input_embeddings().weight is half.model.get_output_embeddings().weight
    for name, p in lm.model.named_parameters():
        assert torch.equal(p, before[name])  # this one stays as it is
    plain, fast = QuestionAnswerEvaluation(), QuestionAnswerEvaluation(dtype="bfloat16")
    sets = {"forget": rows[:3], "retain": rows[3:]}
    own, cast = plain.score(lm, sets), fast.score(lm, sets)
    assert cast == plain.score(half, sets) != own
    for name in sets:
        for a, b in zip(own[name], cast[name], strict=True):
            assert b.loss == pytest.approx(a.loss, rel=0.02)
    assert plain.settings() != fast.settings()
    with pytest.raises(UserError, match=r"evaluation\.dtype=int4: .* bfloat16, .* null"):
        QuestionAnswerEvaluation(dtype="int4")
