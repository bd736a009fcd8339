"""Retain regularisers: pure functions of answer log-probabilities, one value per example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from baselines.objectives import AnswerScores


class RetainRegulariser(Protocol):
    """R of methods.md: keeps the model's answers to retain rows."""

    def __call__(self, scores: AnswerScores) -> torch.Tensor: ...


@dataclass(frozen=True)
class GradientDescent:
    """R = l, the mean cross-entropy over answer tokens of retain rows (TOFU, arXiv 2401.06121)."""

    def __call__(self, scores: AnswerScores) -> torch.Tensor:
        return -scores.log_probability / scores.tokens
