"""Finding the records of runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unierase.errors import UserError
from unierase.experiment.record import RunRecord, read_record


@dataclass(frozen=True)
class Records:
    """finished: to be tabled. left_out: what is not, and why, one line each."""

    finished: tuple[RunRecord, ...]
    left_out: tuple[str, ...]


def load_records(runs: Path) -> Records:
    """Every ``result.json`` below ``runs``; unreadable or unfinished ones are listed, not lost."""
    if not runs.is_dir():
        raise UserError(f"runs={runs}: no such folder; run an experiment first (python run.py)")
    finished, left_out = [], []
    for path in sorted(runs.rglob("result.json")):
        try:
            record = read_record(path)
        except UserError as error:
            left_out.append(str(error))
            continue
        if record.status == "finished":
            finished.append(record)
        else:
            why = f" ({record.error['message']})" if record.error else ""
            left_out.append(f"{path}: {record.status}{why}")
    return Records(tuple(finished), tuple(left_out))
