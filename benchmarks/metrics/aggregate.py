"""Means over scores, and forget quality."""

from __future__ import annotations

from collections.abc import Sequence


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; an error for no values, which are no measurement."""
    if not values:
        raise ValueError("mean of no values")
    return sum(values) / len(values)


def harmonic_mean(values: Sequence[float]) -> float:
    """Harmonic mean of values >= 0; 0 if one of them is 0."""
    if not values:
        raise ValueError("harmonic mean of no values")
    if min(values) <= 0.0:
        return 0.0
    return len(values) / sum(1.0 / value for value in values)


def forget_quality(log_ratios: Sequence[float], retrained: Sequence[float]) -> float:
    """p-value of the two-sample Kolmogorov-Smirnov test between the truth ratios R of the
    unlearned and of the retrained model on the forget set (TOFU, section 2.2.2).

    log R in place of R: the test sees the order of the values only. Not min(R, 1/R), whose order
    is another.
    """
    from scipy.stats import ks_2samp

    return float(ks_2samp(log_ratios, retrained).pvalue)
