"""Forget objectives: F of the total loss ``forget_coeff * F + retain_coeff * R``.

L is the summed cross-entropy over an answer's tokens and l its mean; ref is the model before
unlearning; ``lp`` is a summed log-probability, -L.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from baselines.scored import Batch, Needs, above_zero, present, refusals_of


@dataclass(frozen=True)
class GradientAscent:
    """F = -l (TOFU, arXiv 2401.06121)."""

    needs = Needs()

    def __call__(self, batch: Batch) -> torch.Tensor:
        return batch.answer.mean


@dataclass(frozen=True)
class NPO:
    """F = -(2/beta) logsigmoid(beta (L - L_ref)) (arXiv 2404.05868, equation 3).

    As beta -> 0 its gradient becomes that of gradient ascent on the summed loss.
    """

    beta: float = 0.1
    needs = Needs(reference=True)

    def __post_init__(self) -> None:
        above_zero("method.forget.beta", self.beta)

    def __call__(self, batch: Batch) -> torch.Tensor:
        margin = present(batch.answer_reference) - batch.answer.summed  # L - L_ref
        return -(2.0 / self.beta) * logsigmoid(self.beta * margin)


@dataclass(frozen=True)
class SimNPO:
    """F = -(2/beta) logsigmoid(beta (l - delta)): no reference, length-normalised
    (arXiv 2410.07163, equation 4)."""

    beta: float = 4.5
    delta: float = 0.0
    needs = Needs()

    def __post_init__(self) -> None:
        above_zero("method.forget.beta", self.beta)

    def __call__(self, batch: Batch) -> torch.Tensor:
        return -(2.0 / self.beta) * logsigmoid(self.beta * (-batch.answer.mean - self.delta))


@dataclass(frozen=True)
class DPO:
    """F = -(2/beta) logsigmoid(beta ((lp_idk - lp)_theta - (lp_idk - lp)_ref)): a refusal is
    preferred to the answer (TOFU, arXiv 2401.06121; the factor as in 2410.08109)."""

    beta: float = 0.1
    needs = Needs(refusal=True, reference=True)

    def __post_init__(self) -> None:
        above_zero("method.forget.beta", self.beta)

    def __call__(self, batch: Batch) -> torch.Tensor:
        now = refusals_of(batch).summed - batch.answer.summed
        before = present(batch.refusal_reference) - present(batch.answer_reference)
        return -(2.0 / self.beta) * logsigmoid(self.beta * (now - before))


@dataclass(frozen=True)
class RefusalTuning:
    """F = l(question, refusal), known as IDK (arXiv 2410.08109)."""

    needs = Needs(answer=False, refusal=True)

    def __call__(self, batch: Batch) -> torch.Tensor:
        return -refusals_of(batch).mean


@dataclass(frozen=True)
class MaximumEntropy:
    """F = mean over positions of KL(uniform || p) = -log V - mean_v log p_v (arXiv 2410.08109).

    on_prompt: the question's tokens count, too (published).
    """

    on_prompt: bool = True

    @property
    def needs(self) -> Needs:
        return Needs(logits=True, prompt=self.on_prompt)

    def __call__(self, batch: Batch) -> torch.Tensor:
        log_p = batch.answer.all_logits().log_softmax(-1)
        return batch.answer.mean_over_tokens(-math.log(log_p.shape[-1]) - log_p.mean(-1))
