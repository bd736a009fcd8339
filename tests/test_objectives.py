"""Forget objectives and regularisers against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.objectives import NPO, AnswerScores, GradientAscent
from baselines.pairing import paired_retain_rows
from baselines.regularisers import GradientDescent
from unierase.errors import UserError


def scores(log_probability: list[float], reference: list[float] | None = None) -> AnswerScores:
    return AnswerScores(
        torch.tensor(log_probability, requires_grad=True),
        None if reference is None else torch.tensor(reference),
        torch.tensor([2.0, 4.0]),
    )


def test_gradient_ascent_and_descent() -> None:
    # Two answers of 2 and 4 tokens with L = 3 and 8: l = 1.5 and 2.
    assert GradientAscent()(scores([-3.0, -8.0])).tolist() == [-1.5, -2.0]
    assert GradientDescent()(scores([-3.0, -8.0])).tolist() == [1.5, 2.0]


def test_npo() -> None:
    # L = L_ref: -(2/0.5) log(1/2) = 4 log 2. L - L_ref = 2: 4 log(1 + exp(-1)).
    values = NPO(beta=0.5)(scores([-3.0, -8.0], [-3.0, -6.0]))
    assert values.tolist() == pytest.approx([4 * math.log(2), 4 * math.log1p(math.exp(-1.0))])


def test_npo_becomes_gradient_ascent_for_small_beta() -> None:
    batch = scores([-3.0, -8.0], [-2.0, -9.0])
    NPO(beta=1e-6)(batch).sum().backward()
    # Ascent on the summed loss has gradient +1 towards log-probability.
    assert batch.log_probability.grad is not None
    assert batch.log_probability.grad.tolist() == pytest.approx([1.0, 1.0], abs=1e-4)


def test_npo_wants_a_positive_beta() -> None:
    with pytest.raises(UserError, match="beta=0"):
        NPO(beta=0)


def test_pairing() -> None:
    epochs = [paired_retain_rows(4, 6, epoch, seed=1) for epoch in range(3)]
    assert epochs == [paired_retain_rows(4, 6, epoch, seed=1) for epoch in range(3)]
    flat = [index for epoch in epochs for index in epoch]
    # 12 draws from 6 rows: every row exactly twice, once in each pass.
    assert sorted(flat[:6]) == sorted(flat[6:]) == list(range(6))
    assert flat != [i for e in range(3) for i in paired_retain_rows(4, 6, e, seed=2)]
