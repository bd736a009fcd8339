"""Scores of answer likelihoods (TOFU, arXiv 2401.06121). Losses are mean nats per token."""

from __future__ import annotations

import math
from collections.abc import Sequence


def _exp(x: float) -> float:
    """exp that saturates instead of failing: a ratio of likelihoods can be any size."""
    return math.exp(min(x, 700.0))


def probability(loss: float) -> float:
    """p = exp(-l), the answer's likelihood per token."""
    return _exp(-loss)


def normalised_probability(loss: float, perturbed_losses: Sequence[float]) -> float:
    """p(answer) / (p(answer) + sum_j p(perturbed_j)), computed without underflow."""
    return 1.0 / (1.0 + sum(_exp(loss - other) for other in perturbed_losses))


def log_truth_ratio(paraphrased_loss: float, perturbed_losses: Sequence[float]) -> float:
    """log R = mean_j l(perturbed_j) - l(paraphrased): the geometric mean over wrong answers.

    Positive where the model finds the true answer likelier than wrong ones. (TOFU's code also has
    a variant with an arithmetic mean, see ``official_logs``.)
    """
    return sum(perturbed_losses) / len(perturbed_losses) - paraphrased_loss


def truth_ratio_forget(log_ratio: float) -> float:
    """min(R, 1/R): 1 where the true answer can't be told from wrong ones."""
    return _exp(-abs(log_ratio))


def truth_ratio_other(log_ratio: float) -> float:
    """max(0, 1 - 1/R): near 1 where the true answer is much likelier than wrong ones."""
    return max(0.0, 1.0 - _exp(-log_ratio))
