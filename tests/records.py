"""Records made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unierase.experiment.record import RunRecord


def record(method: str, seed: int, fe: float, rows: int = 40, **changes: Any) -> RunRecord:
    after = {
        "sets": {"forget": {"rows": rows, "rouge": 1 - fe, "probability": 0.5}},
        "FE": fe,
        "FE_scores": 3,
        "FE_scores_full": 5,
        "MU": 0.8,
        "MU_scores": 6,
        "MU_scores_full": 6,
        "balance": None,
        "absent": {"balance": "for a test"},
    }
    base = RunRecord(
        key=f"{method}{seed}",
        model="tiny",
        data="tofu",
        split="forget01",
        scenario="batch",
        method=method,
        seed=seed,
        status="finished",
        before=after,
        after=after,
        seconds={"unlearning": 2.0},
        versions={"torch": "2", "transformers": "5"},
    )
    return replace(base, **changes)


def after(record: RunRecord) -> dict[str, Any]:
    assert record.after is not None
    return record.after
