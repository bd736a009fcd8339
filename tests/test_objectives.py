"""Forget objectives and regularisers against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from baselines.objectives import (
    DPO,
    NPO,
    GradientAscent,
    MaximumEntropy,
    RefusalTuning,
    SimNPO,
)
from baselines.pairing import paired_retain_rows
from baselines.regularisers import AnswerPreservation, GradientDescent, KLToReference
from baselines.scored import Batch, Objective, Scored
from baselines.token_objectives import (
    CrossEntropyUnlearning,
    SaturationImportance,
    SelfDistillation,
    WeightedGradientAscent,
)
from unierase.errors import UserError

LOG2, LOG3 = math.log(2), math.log(3)


def softplus(x: float) -> float:
    """-logsigmoid(-x)."""
    return math.log1p(math.exp(x))


def answers(*log_probabilities: list[float]) -> Scored:
    """One answer for each list, shorter ones padded on the left."""
    longest = max(len(row) for row in log_probabilities)
    padded = [[0.0] * (longest - len(row)) + row for row in log_probabilities]
    mask = [[0.0] * (longest - len(row)) + [1.0] * len(row) for row in log_probabilities]
    values = torch.tensor(padded, requires_grad=True)
    return Scored(values, torch.tensor(mask), torch.zeros(values.shape, dtype=torch.long))


def predicted(logits: list[list[float]], targets: list[int]) -> Scored:
    """One answer with the logits of each of its tokens."""
    values = torch.tensor([logits], requires_grad=True)
    tokens = torch.tensor([targets])
    picked = values.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return Scored(picked, torch.ones(1, len(targets)), tokens, values)


def one(objective: Objective, batch: Batch) -> float:
    (value,) = objective(batch).tolist()
    return float(value)


# Two answers with L = 3 over 2 tokens and L = 8 over 4: l = 1.5 and 2.
TWO = answers([-1.0, -2.0], [-1.0, -2.0, -2.0, -3.0])


def test_gradient_ascent_and_descent() -> None:
    assert GradientAscent()(Batch(TWO)).tolist() == [-1.5, -2.0]
    assert GradientDescent()(Batch(TWO)).tolist() == [1.5, 2.0]


def test_npo() -> None:
    # L = L_ref: -(2/0.5) log(1/2) = 4 log 2. L - L_ref = 2: 4 log(1 + exp(-1)).
    batch = Batch(TWO, answer_reference=torch.tensor([-3.0, -6.0]))
    assert NPO(beta=0.5)(batch).tolist() == pytest.approx([4 * LOG2, 4 * softplus(-1.0)])


def test_npo_becomes_gradient_ascent_for_small_beta() -> None:
    scored = answers([-3.0], [-8.0])
    NPO(beta=1e-6)(Batch(scored, answer_reference=torch.tensor([-2.0, -9.0]))).sum().backward()
    # Ascent on the summed loss has gradient +1 towards log-probability.
    gradient = scored.log_probabilities.grad
    assert gradient is not None
    assert gradient.flatten().tolist() == pytest.approx([1.0, 1.0], abs=1e-4)


def test_simnpo() -> None:
    # l = 1.5: -(2/2) logsigmoid(2 (1.5 - 0.5)); l = 2: logsigmoid(2 * 1.5).
    values = SimNPO(beta=2.0, delta=0.5)(Batch(TWO)).tolist()
    assert values == pytest.approx([softplus(-2.0), softplus(-3.0)])


def test_dpo() -> None:
    # Now lp_idk - lp = -2 + 3 = 1, before -4 + 1 = -3: -(2/0.5) logsigmoid(0.5 * 4).
    batch = Batch(
        answers([-1.0, -2.0]), answers([-2.0]), torch.tensor([-1.0]), torch.tensor([-4.0])
    )
    assert one(DPO(beta=0.5), batch) == pytest.approx(4 * softplus(-2.0))


def test_refusals() -> None:
    batch = Batch(answers([-7.0]), answers([-1.0, -3.0]))
    assert one(RefusalTuning(), batch) == 2.0
    # L_idk - L = 4 - 7 = -3: -(1/0.5) logsigmoid(-1.5).
    assert one(AnswerPreservation(beta=0.5), batch) == pytest.approx(2 * softplus(1.5))


def test_maximum_entropy() -> None:
    # Uniform: 0. p = (3/4, 1/4): -log 2 - (log 3/4 + log 1/4) / 2. The mean of both positions.
    apart = -LOG2 - (math.log(0.75) + math.log(0.25)) / 2
    batch = Batch(predicted([[0.0, 0.0], [LOG3, 0.0]], [0, 0]))
    assert one(MaximumEntropy(), batch) == pytest.approx(apart / 2, abs=1e-6)
    assert MaximumEntropy().needs.prompt and not MaximumEntropy(on_prompt=False).needs.prompt


def test_weighted_ascent() -> None:
    # p = 1/2 and 1: weights 1/4 and 1 for alpha 2; log p = -log 2 and 0.
    scored = answers([-LOG2, 0.0])
    value = WeightedGradientAscent(alpha=2.0)(Batch(scored))
    assert value.tolist() == pytest.approx([-LOG2 / 4 / 2])
    value.sum().backward()
    gradient = scored.log_probabilities.grad
    assert gradient is not None  # the weights themselves have none
    assert gradient.tolist() == [pytest.approx([1 / 8, 1 / 2])]


def test_saturation_and_importance() -> None:
    # p = 1/2: (1/2)^2 (1/2) log(1/2); p = 1 has no importance.
    value = one(SaturationImportance(beta1=2.0, beta2=1.0), Batch(answers([-LOG2, 0.0])))
    assert value == pytest.approx(-LOG2 / 8 / 2)


def test_cross_entropy_unlearning() -> None:
    # p = (1/4, 1/2, 1/4); without the token: (1/2, 0, 1/2). Cross-entropy log 4.
    scored = predicted([[0.0, LOG2, 0.0]], [1])
    assert one(CrossEntropyUnlearning(), Batch(scored)) == pytest.approx(math.log(4))


def test_self_distillation() -> None:
    # The reference's (1, 0) lowered by 1 at the token is uniform; p = (3/4, 1/4).
    batch = Batch(predicted([[LOG3, 0.0]], [0]), reference_logits=torch.tensor([[[1.0, 0.0]]]))
    expected = -(math.log(0.75) + math.log(0.25)) / 2
    assert one(SelfDistillation(beta=1.0), batch) == pytest.approx(expected)


def test_kl_to_reference() -> None:
    # KL((3/4, 1/4) || uniform) at one token, 0 at the other.
    reference = torch.tensor([[[LOG3, 0.0], [0.0, 0.0]]])
    batch = Batch(predicted([[0.0, 0.0], [0.0, 0.0]], [0, 1]), reference_logits=reference)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert one(KLToReference(), batch) == pytest.approx(expected / 2)


EVERY: list[Callable[[], Objective]] = [
    GradientAscent,
    NPO,
    SimNPO,
    DPO,
    RefusalTuning,
    MaximumEntropy,
    WeightedGradientAscent,
    SaturationImportance,
    CrossEntropyUnlearning,
    SelfDistillation,
    GradientDescent,
    KLToReference,
    AnswerPreservation,
]


@pytest.mark.parametrize("make", EVERY)
def test_padding_changes_nothing(make: Callable[[], Objective]) -> None:
    objective = make()
    plain = predicted([[0.3, -1.0, 0.2], [1.0, 0.0, -0.5]], [2, 0])
    reference = torch.tensor([[[0.1, 0.2, 0.3], [-0.3, 0.8, 0.0]]])
    sums = torch.tensor([-2.5])
    batch = Batch(plain, plain, sums, sums - 1, reference)
    assert plain.logits is not None
    noise = torch.tensor([[[9.0, -9.0, 4.0]]])
    padded = Scored(
        torch.cat([torch.zeros(1, 1), plain.log_probabilities], 1),
        torch.cat([torch.zeros(1, 1), plain.mask], 1),
        torch.cat([torch.ones(1, 1, dtype=torch.long), plain.targets], 1),
        torch.cat([noise, plain.logits], 1),
    )
    longer = replace(
        batch,
        answer=padded,
        refusal=padded,
        reference_logits=torch.cat([noise, reference], 1),
    )
    torch.testing.assert_close(objective(longer), objective(batch))


def test_a_beta_is_positive() -> None:
    for make in (NPO, SimNPO, DPO):
        with pytest.raises(UserError, match=r"method\.forget\.beta=0"):
            make(beta=0)
    with pytest.raises(UserError, match=r"method\.retain\.beta=0"):
        AnswerPreservation(beta=0)


def test_pairing() -> None:
    epochs = [paired_retain_rows(4, 6, epoch, seed=1) for epoch in range(3)]
    assert epochs == [paired_retain_rows(4, 6, epoch, seed=1) for epoch in range(3)]
    flat = [index for epoch in epochs for index in epoch]
    # 12 draws from 6 rows: every row exactly twice, once in each pass.
    assert sorted(flat[:6]) == sorted(flat[6:]) == list(range(6))
    assert flat != [i for e in range(3) for i in paired_retain_rows(4, 6, e, seed=2)]
