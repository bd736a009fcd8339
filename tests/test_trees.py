"""Answers to one question in one row: the same scores, fewer tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_architectures import FAMILIES, random_model

from unierase.models.language_model import LanguageModel
from unierase.rows import Row
from unierase.scoring.likelihood import score_answers
from unierase.scoring.trees import AnswerTree, TreeInputs, may_branch


def test_a_tree_by_hand() -> None:
    tree = AnswerTree.of([[5, 6, 7], [5, 6, 8, 9], [4, 9], [3], [5, 6, 7]])
    # 5-6 is shared, as is nothing of 4; last tokens are only predicted.
    assert tree.tokens == (5, 6, 8, 4) and tree.parents == (-1, 0, 1, -1)
    assert tree.paths == ((0, 1), (0, 1, 2), (3,), (), (0, 1))
    assert tree.depths() == [0, 1, 2, 0]
    assert tree.seen().int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 0, 0, 1],
    ]


def test_inputs_by_hand(lm: LanguageModel) -> None:
    trees = [AnswerTree.of([[5, 6, 7], [5, 8, 9]]), AnswerTree.of([[4, 9]])]
    prompts = torch.tensor([[1, 1], [0, 1]])
    inputs = TreeInputs.of(trees, prompts, lm)
    assert inputs.ids[0].tolist() == [5, 6, 8] and inputs.ids[1, 0] == 4
    assert inputs.positions.tolist()[0] == [2, 3, 3] and inputs.positions[1, 0] == 1
    assert inputs.own.tolist() == [[1, 1, 1], [1, 0, 0]]
    seen = inputs.mask == 0
    assert seen[0, 0].int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 0, 1]]
    assert seen[1, 0, 0].int().tolist() == [0, 1, 1, 0, 0]
    assert seen.any(-1).all()  # nobody looks at nothing
    single = TreeInputs.of(trees[1:], prompts[1:], lm)
    assert single.mask.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_score_together_as_alone(
    family: str, lm: LanguageModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = random_model(family, lm)
    pairs = [
        (row.question, other.encode_answer(text))
        for row in rows[:3]
        for text in (row.answer, *row.perturbed_answers, "R")
    ]
    tokens = 0
    forward = other.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal tokens
        tokens += kwargs["input_ids"].numel()
        return forward(*args, **kwargs)

    monkeypatch.setattr(other.model, "forward", counted)
    flags = [True] * len(pairs)
    together = score_answers(other, pairs, standardise=flags)
    run, tokens = tokens, 0
    alone = [score_answers(other, [pair], standardise=[True])[0] for pair in pairs]
    for one, two in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.log_probabilities, two.log_probabilities, atol=2e-5)
        assert one.standardised is not None and two.standardised is not None
        np.testing.assert_allclose(one.standardised, two.standardised, atol=1e-3)
        assert (one.greedy == two.greedy).all()
    # Gemma 2's window is shorter than these rows: each answer has one of its own.
    assert run < tokens / 2 or not may_branch(other, 40)


def test_who_may_branch(lm: LanguageModel) -> None:
    assert may_branch(lm, 10_000)
    window = random_model("Gemma2", lm)
    assert may_branch(window, 8) and not may_branch(window, 9)
    lm.model.config._attn_implementation = "flash_attention_2"
    assert not may_branch(lm, 8)
