"""How far aggregates would move with other rows: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.aggregates import SIX, add_forgetting, add_retaining, six_scores
from benchmarks.metrics.aggregate import harmonic_mean
from unierase.scores import AnswerSets, RowScores

RESAMPLES = 1000
LEVEL = 0.95
AGGREGATES = ("FE", "FE_earlier", "RE", "MU", "balance", "model_utility")


def bootstrap_intervals(scores: AnswerSets, seed: int = 0) -> dict[str, Any] | None:
    """95 % intervals of every aggregate and of the six scores of every set, as [low, high].

    Percentiles over ``RESAMPLES`` draws of as many rows of each set as it has, with replacement.
    None where a set has a single row: nothing could vary.
    """
    if not scores or any(len(rows) < 2 for rows in scores.values()):
        return None
    generator = np.random.default_rng(seed)
    means = {name: _resampled(name, rows, generator) for name, rows in scores.items()}
    drawn: dict[str, list[float]] = {}
    for i in range(RESAMPLES):
        sets = {
            name: {score: None if v is None else float(v[i]) for score, v in values.items()}
            for name, values in means.items()
        }
        for name, value in _aggregates(sets).items():
            drawn.setdefault(name, []).append(value)
    found: dict[str, Any] = {name: interval(values) for name, values in drawn.items()}
    found["sets"] = {
        name: {score: interval(v) for score, v in values.items() if v is not None}
        for name, values in means.items()
    }
    return found


def interval(values: Sequence[float] | np.ndarray) -> list[float]:
    """The middle ``LEVEL`` of the values: [low, high]."""
    low, high = np.quantile(np.asarray(values), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def _resampled(
    name: str, rows: Sequence[RowScores], generator: np.random.Generator
) -> dict[str, np.ndarray | None]:
    """The means of the six scores in every draw, (RESAMPLES,); None for one that a row lacks."""
    counts = generator.multinomial(len(rows), [1 / len(rows)] * len(rows), RESAMPLES)
    each = [six_scores(name, row) for row in rows]
    found: dict[str, np.ndarray | None] = {}
    for score in SIX:
        values = np.array([row[score] for row in each], dtype=float)  # None becomes nan
        present = ~np.isnan(values)
        # A truth ratio is the mean over the rows that have one; other scores are all or nothing.
        partial = score == "truth_ratio" and present.any()
        if not present.all() and not partial:
            found[score] = None
            continue
        weights = counts[:, present]
        total = weights.sum(1)
        mean = float(values[present].mean())
        sums = weights @ values[present]
        found[score] = np.where(total > 0, sums / np.maximum(total, 1), mean)
    return found


def _aggregates(sets: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    metrics: dict[str, Any] = {}
    absent: dict[str, str] = {}
    add_forgetting(metrics, sets, absent)
    add_retaining(metrics, sets, absent)
    if metrics["FE"] is not None and metrics["MU"] is not None:
        metrics["balance"] = harmonic_mean([max(0.0, metrics["FE"]), metrics["MU"]])
    return {name: metrics[name] for name in AGGREGATES if metrics.get(name) is not None}
