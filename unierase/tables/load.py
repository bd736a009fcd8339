"""Finding the records of runs: in their folders, or many in one compact file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unierase.errors import UserError
from unierase.experiment.record import RunRecord, read_record, record_of
from unierase.files import write_text

COMPACT = "records.jsonl"
"""A file of records, one a line, without what no table reads."""


@dataclass(frozen=True)
class Records:
    """finished: to be tabled. left_out: what is not, and why, one line each."""

    finished: tuple[RunRecord, ...]
    left_out: tuple[str, ...]


def load_records(runs: Path) -> Records:
    """Every record below ``runs``; unreadable or unfinished ones are listed, not lost. A run that
    lies in its folder and in a compact file, too, counts once."""
    if not runs.is_dir():
        raise UserError(f"runs={runs}: no such folder; run an experiment first (python run.py)")
    finished: dict[str, RunRecord] = {}
    left_out = []
    for path in [*sorted(runs.rglob(COMPACT)), *sorted(runs.rglob("result.json"))]:
        try:
            for record in _records(path):
                if record.status == "finished":
                    finished[record.key] = record
                else:
                    why = f" ({record.error['message']})" if record.error else ""
                    left_out.append(f"{path}: {record.status}{why}")
        except UserError as error:
            left_out.append(str(error))
    return Records(tuple(finished.values()), tuple(left_out))


def _records(path: Path) -> Iterator[RunRecord]:
    if path.name != COMPACT:
        yield read_record(path)
        return
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        where = Path(f"{path}:{number}")
        try:
            values = json.loads(line)
        except ValueError as error:
            raise UserError(f"{where}: not JSON") from error
        yield record_of(values, where)


def write_compact(records: Iterable[RunRecord], path: Path) -> None:
    """Write ``records``, in an order of their own, as a file that ``load_records`` reads.

    Left out: what can be computed again (change) and intervals of single rounds. Numbers have six
    digits.
    """

    def place(record: RunRecord) -> tuple[Any, ...]:
        return (record.data, record.model, record.scenario, record.method, record.seed, record.key)

    lines = [
        json.dumps(_shortened(_pruned(record)), separators=(",", ":"), ensure_ascii=False)
        for record in sorted(records, key=place)
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))


def _pruned(record: RunRecord) -> dict[str, Any]:
    rounds = [
        {**r, "metrics": {k: v for k, v in r["metrics"].items() if k != "intervals"}}
        for r in record.rounds
    ]
    return {**asdict(record), "change": None, "rounds": rounds}


def _shortened(value: Any) -> Any:
    """Floats to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _shortened(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(own) for own in value]
    return value
