"""Membership inference: was an answer in the training data? Higher scores say yes.

Scores of one answer are functions of its tokens' log-probabilities (nats).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

LOWEST_SHARE = 0.2
"""K of Min-K % (arXiv 2310.16789) and Min-K %++ (arXiv 2404.02936)."""


def loss_score(log_probabilities: Sequence[float]) -> float:
    """-l: the mean log-probability (LOSS; Yeom et al., arXiv 1709.01604)."""
    return sum(log_probabilities) / len(log_probabilities)


def zlib_score(log_probabilities: Sequence[float], answer: str) -> float:
    """-l over the bytes zlib needs for the text: what is simple is likely anyway (arXiv
    2012.07805)."""
    return loss_score(log_probabilities) / len(zlib.compress(answer.encode()))


def lowest_mean(values: Sequence[float], share: float = LOWEST_SHARE) -> float:
    """Mean of the lowest ``share`` of the values, at least of one.

    Of log-probabilities: Min-K %. Of log-probabilities standardised by the mean and the standard
    deviation of the vocabulary's at each place: Min-K %++.
    """
    count = max(1, math.floor(share * len(values)))
    return sum(sorted(values)[:count]) / count


def gradient_score(norm: float) -> float:
    """Minus the norm of the loss's gradient: a model hardly moves for what it was trained on
    (arXiv 2402.17012, white-box)."""
    return -norm


def area_under_curve(members: Sequence[float], others: Sequence[float]) -> float:
    """AUC: how often a member scores above a non-member; ties count half. 0.5 is guessing."""
    both = np.concatenate([np.asarray(members, float), np.asarray(others, float)])
    from scipy.stats import rankdata

    ranks = rankdata(both)[: len(members)]
    lowest = len(members) * (len(members) + 1) / 2
    return float((ranks.sum() - lowest) / (len(members) * len(others)))


def privacy_leakage(auc: float, retrained: float) -> float:
    """PrivLeak of MUSE (arXiv 2407.06460), as a share: ((1 - AUC) - (1 - AUC_r)) / (1 - AUC_r).

    MUSE counts from the non-members' side: -1 where forget rows are still told from holdout rows
    without error, 0 as with the retrained model, above 0 where they stand out by being unlikely.
    """
    return (retrained - auc) / (1.0 - retrained)
