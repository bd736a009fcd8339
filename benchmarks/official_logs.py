"""Aggregating the evaluation logs of TOFU's own code."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.metrics.aggregate import forget_quality, harmonic_mean, mean
from benchmarks.metrics.likelihood import (
    log_truth_ratio,
    normalised_probability,
    probability,
    truth_ratio_forget,
    truth_ratio_other,
)
from unierase.errors import UserError

SECTIONS = {
    "retain": "eval_log.json",
    "forget": "eval_log_forget.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}
FIELDS = ("avg_gt_loss", "avg_paraphrased_loss", "average_perturb_loss", "rougeL_recall")

Log = Mapping[str, Mapping[str, list[Any]]]
"""Per-row values by set and field, in row order."""


def read_log(path: Path) -> Log:
    """The four fields of every section; a UserError names what is missing."""
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            raw = json.load(file)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a JSON log ({error})") from error
    sets: dict[str, dict[str, list[Any]]] = {}
    for name, section in SECTIONS.items():
        sets[name] = {}
        for field in FIELDS:
            values = raw.get(section, {}).get(field) if isinstance(raw, dict) else None
            if not isinstance(values, dict) or not values:
                raise UserError(f"{path}: no {field} in section {section}")
            # Keys are row numbers as strings: "10" sorts after "9".
            sets[name][field] = [values[key] for key in sorted(values, key=int)]
        if len({len(values) for values in sets[name].values()}) != 1:
            raise UserError(f"{path}: section {section} has fields of different lengths")
    return sets


def log_ratios(section: Mapping[str, list[Any]]) -> list[float]:
    """log R of every row, with the geometric mean over wrong answers (the leaderboard's)."""
    return [
        log_truth_ratio(paraphrased, perturbed)
        for paraphrased, perturbed in zip(
            section["avg_paraphrased_loss"], section["average_perturb_loss"], strict=True
        )
    ]


def _arithmetic_log_ratios(section: Mapping[str, list[Any]]) -> list[float]:
    """log R with the arithmetic mean over wrong answers, the code's other definition."""
    return [
        float(-np.log(np.mean(np.exp(-np.asarray(perturbed)))) - paraphrased)
        for paraphrased, perturbed in zip(
            section["avg_paraphrased_loss"], section["average_perturb_loss"], strict=True
        )
    ]


def aggregate_log(log: Log, retrained: Log | None = None) -> dict[str, Any]:
    """Every aggregate of TOFU from per-row losses; forget quality against ``retrained``."""
    sets: dict[str, dict[str, Any]] = {}
    for name, section in log.items():
        if name in ("real_authors", "world_facts"):
            likely = [
                normalised_probability(loss, perturbed)
                for loss, perturbed in zip(
                    section["avg_gt_loss"], section["average_perturb_loss"], strict=True
                )
            ]
        else:
            likely = [probability(loss) for loss in section["avg_gt_loss"]]
        ratio = truth_ratio_forget if name == "forget" else truth_ratio_other
        sets[name] = {
            "rows": len(likely),
            "probability": mean(likely),
            "rouge": mean(section["rougeL_recall"]),
            "truth_ratio": mean([ratio(r) for r in log_ratios(section)]),
            "truth_ratio_arithmetic": mean([ratio(r) for r in _arithmetic_log_ratios(section)]),
        }
    nine = [
        sets[name][score]
        for name in sets
        if name != "forget"
        for score in ("probability", "rouge", "truth_ratio")
    ]
    return {
        "sets": sets,
        "model_utility": harmonic_mean(nine),
        "forget_truth_ratio": sets["forget"]["truth_ratio"],
        "forget_quality": (
            forget_quality(log_ratios(log["forget"]), log_ratios(retrained["forget"]))
            if retrained
            else None
        ),
    }
