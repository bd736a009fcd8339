"""Forget objectives: pure functions of answer log-probabilities, one value per example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import logsigmoid

from unierase.errors import UserError


@dataclass(frozen=True)
class AnswerScores:
    """What a batch of forget rows gives an objective; every tensor is (batch,).

    log_probability: summed log-probability of the answer's tokens, -L.
    reference: the same under the model before unlearning, without gradient; None unless asked for.
    tokens: number of the answer's tokens.
    """

    log_probability: torch.Tensor
    reference: torch.Tensor | None
    tokens: torch.Tensor


class ForgetObjective(Protocol):
    """F of methods.md: to be minimised. ``needs_reference`` asks for reference log-probabilities,
    which the trainer computes once."""

    needs_reference: bool

    def __call__(self, scores: AnswerScores) -> torch.Tensor: ...


@dataclass(frozen=True)
class GradientAscent:
    """F = -l, the negative mean cross-entropy over answer tokens (TOFU, arXiv 2401.06121)."""

    needs_reference = False

    def __call__(self, scores: AnswerScores) -> torch.Tensor:
        return scores.log_probability / scores.tokens


@dataclass(frozen=True)
class NPO:
    """F = -(2/beta) logsigmoid(beta (L - L_ref)) (arXiv 2404.05868, equation 3).

    L is the summed cross-entropy, so L - L_ref = -(log pi_theta - log pi_ref). As beta -> 0 its
    gradient becomes that of gradient ascent on the summed loss.
    """

    beta: float = 0.1
    needs_reference = True

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise UserError(f"method.forget.beta={self.beta}: must be above 0")

    def __call__(self, scores: AnswerScores) -> torch.Tensor:
        if scores.reference is None:
            raise ValueError("NPO needs reference log-probabilities")
        margin = scores.reference - scores.log_probability  # L - L_ref
        return -(2.0 / self.beta) * logsigmoid(self.beta * margin)
