"""Aggregates over sets of rows: pure functions of the rows' scores.

TOFU's metrics (arXiv 2401.06121); FE, RE, MU and Balance (arXiv 2410.08109); membership inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.metrics.aggregate import harmonic_mean, mean
from benchmarks.metrics.likelihood import (
    log_truth_ratio,
    normalised_probability,
    probability,
    truth_ratio_forget,
    truth_ratio_other,
)
from benchmarks.metrics.membership import area_under_curve, privacy_leakage
from unierase.scores import AnswerSets, RowScores

FORGET = "forget"
FORGET_SETS = (FORGET, "earlier")
OPTION_SETS = ("real_authors", "world_facts")
"""Sets whose probability TOFU normalises by that of the wrong options."""
HOLDOUT = "holdout"
"""Rows no model was ever taught: what membership inference compares with."""
HELD_OUT = "held_out"
"""Retained rows that no method is shown: reported beside the aggregates, not in them."""
SWAPPED = "swapped"
"""Questions to be forgotten, asked about somebody else: no answer to them is known to be right."""
NEIGHBOR = "neighbor"
"""RETURN's set to retain: people that no method is shown."""
UTILITY_SETS = ("retain", *OPTION_SETS)

SIX = ("probability", "rouge", "truth_ratio", "token_entropy", "cosine", "entailment")
FIVE = tuple(name for name in SIX if name != "token_entropy")


def log_ratios(rows: Sequence[RowScores]) -> list[float]:
    """log R of every row with perturbed answers; a row without a paraphrase uses its answer."""
    return [
        log_truth_ratio(
            row.loss if row.paraphrased_loss is None else row.paraphrased_loss,
            row.perturbed_losses,
        )
        for row in rows
        if row.perturbed_losses
    ]


def six_scores(name: str, row: RowScores) -> dict[str, float | None]:
    """What one row of the set ``name`` adds to the means of the six scores; None: nothing."""
    forget = name in FORGET_SETS
    ratio = log_ratios([row])
    truth = [truth_ratio_forget(r) if forget else truth_ratio_other(r) for r in ratio]
    return {
        "probability": normalised_probability(row.loss, row.perturbed_losses)
        if name in OPTION_SETS
        else probability(row.loss),
        "rouge": row.rouge,
        "truth_ratio": (1.0 - truth[0] if forget else truth[0]) if truth else None,
        "token_entropy": row.token_entropy,
        "cosine": row.cosine,
        "entailment": row.entailment,
    }


def set_metrics(name: str, rows: Sequence[RowScores]) -> dict[str, Any]:
    """The six scores of one set, as metrics of forgetting or retaining define them, and others."""
    each = [six_scores(name, row) for row in rows]
    ratios = [row["truth_ratio"] for row in each if row["truth_ratio"] is not None]
    truth = mean(ratios) if ratios else None  # of the rows that have wrong answers
    metrics: dict[str, Any] = {
        "rows": len(rows),
        **{score: _mean_or_none([row[score] for row in each]) for score in SIX},
        "truth_ratio": truth,
        "emits_unl": mean([float(row.emits_unl) for row in rows]),
        "refusal": _mean_or_none([row.refusal for row in rows]),
        "exact_memorisation": _mean_or_none([row.exact_memorisation for row in rows]),
        "extraction_strength": _mean_or_none([row.extraction_strength for row in rows]),
        "flagged": _mean_or_none([row.flagged for row in rows]),
        "generated_tokens": mean([float(row.generated_tokens) for row in rows]),
        "first_token_probability": mean([probability(row.first_token_loss) for row in rows]),
        "rest_probability": _mean_or_none([_rest_probability(row) for row in rows]),
        "banned_rouge": _mean_or_none([row.banned_rouge for row in rows]),
    }
    if name in FORGET_SETS:
        metrics["tofu_truth_ratio"] = None if truth is None else 1.0 - truth
    return metrics


def _rest_probability(row: RowScores) -> float | None:
    """exp of the mean log-probability from the answer's second token on: what is left of an
    answer whose first token alone was redirected. None for an answer of one token."""
    if row.answer_tokens < 2:
        return None
    rest = row.loss * row.answer_tokens - row.first_token_loss
    return probability(rest / (row.answer_tokens - 1))


def membership(
    scores: AnswerSets, retrained: AnswerSets | None, absent: dict[str, str]
) -> dict[str, dict[str, float | None]] | None:
    """AUC of each attack, forget rows against holdout rows, and PrivLeak where a retrained model
    was scored. With one, its loss is what the attack "reference" compares with."""
    if not scores.get("forget") or not scores.get(HOLDOUT):
        absent["membership"] = "no rows that nobody was taught (data.retain_authors=N leaves some)"
        return None
    ours = _attacks(scores, retrained)
    theirs = {} if retrained is None else _attacks(retrained, None)
    found: dict[str, dict[str, float | None]] = {}
    for name, auc in ours.items():
        against = theirs.get(name)
        leak = None if against is None or against == 1 else privacy_leakage(auc, against)
        found[name] = {"auc": auc, "retrained_auc": against, "privleak": leak}
    return found


def _attacks(scores: AnswerSets, reference: AnswerSets | None) -> dict[str, float]:
    """AUC by attack."""
    members, others = scores["forget"], scores[HOLDOUT]
    # A fixed reply has no Min-K %++: an attack needs all rows' scores.
    of_rows = [row.membership or {} for row in (*members, *others)]
    names = [name for name in of_rows[0] if all(name in known for known in of_rows)]
    found = {
        name: area_under_curve(
            [(row.membership or {})[name] for row in members],
            [(row.membership or {})[name] for row in others],
        )
        for name in names
    }
    if reference is not None and reference.get(HOLDOUT):
        known = {row.id: row.loss for name in ("forget", HOLDOUT) for row in reference[name]}
        found["reference"] = area_under_curve(
            [known[row.id] - row.loss for row in members],
            [known[row.id] - row.loss for row in others],
        )
    return found


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return mean(present) if len(present) == len(values) and present else None


def _present(metrics: Mapping[str, Any], names: Sequence[str]) -> list[float]:
    return [metrics[name] for name in names if metrics[name] is not None]


def add_forgetting(
    metrics: dict[str, Any], sets: Mapping[str, Mapping[str, Any]], absent: dict[str, str]
) -> None:
    """FE = 1 - mean of the forget set's five scores without entropy (arXiv 2410.08109)."""
    metrics["FE_scores_full"] = len(FIVE)
    for name, key in (("forget", "FE"), ("earlier", "FE_earlier")):
        if name in sets:
            five = _present(sets[name], FIVE)
            metrics[key] = 1.0 - mean(five)
            metrics[f"{key}_scores"] = len(five)
    if "forget" not in sets:
        metrics.update(FE=None, FE_scores=0)
        absent["FE"] = "no forget set was scored"
    metrics["forget_truth_ratio"] = sets.get("forget", {}).get("tofu_truth_ratio")


def add_retaining(
    metrics: dict[str, Any], sets: Mapping[str, Mapping[str, Any]], absent: dict[str, str]
) -> None:
    """MU, RE: harmonic means of all six scores over the other sets; TOFU's model utility."""
    others = [name for name in sets if name not in (*FORGET_SETS, HELD_OUT, HOLDOUT, SWAPPED)]
    retained = [name for name in others if name in ("retain", NEIGHBOR)]
    groups = (("MU", others), ("RE", retained))
    for key, names in groups:
        values = [value for name in names for value in _present(sets[name], SIX)]
        metrics[key] = harmonic_mean(values) if values else None
        metrics[f"{key}_scores"] = len(values)
        metrics[f"{key}_scores_full"] = len(SIX) * len(names)
        if not values:
            absent[key] = "no set to retain was scored"
    missing = [name for name in UTILITY_SETS if name not in sets]
    nine = (
        []
        if missing
        else [
            sets[name][score]
            for name in UTILITY_SETS
            for score in ("probability", "rouge", "truth_ratio")
        ]
    )
    if missing or any(value is None for value in nine):
        metrics["model_utility"] = None
        absent["model_utility"] = f"needs {', '.join(UTILITY_SETS)} with perturbed answers"
    else:
        metrics["model_utility"] = harmonic_mean(nine)
