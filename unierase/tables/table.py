"""A results table: which records belong together, and what its cells hold."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unierase.errors import UserError
from unierase.experiment.record import RunRecord


@dataclass(frozen=True)
class Column:
    """A quantity: its heading, where it is found in a record, and which way is better.

    better: +1 higher, -1 lower, 0 neither (no cell is marked best).
    scale, digits: how a value is shown.
    """

    name: str
    path: tuple[str, ...]
    better: int = 0
    scale: float = 1.0
    digits: int = 3

    @property
    def heading(self) -> str:
        return self.name + {1: " ↑", -1: " ↓", 0: ""}[self.better]


COLUMNS = (
    Column("FE", ("after", "FE"), 1),
    Column("RE", ("after", "RE"), 1),
    Column("MU", ("after", "MU"), 1),
    Column("Balance", ("after", "balance"), 1),
    Column("Forget ROUGE-L", ("after", "sets", "forget", "rouge"), -1),
    Column("Forget prob.", ("after", "sets", "forget", "probability"), -1),
    Column("Earlier ROUGE-L", ("after", "sets", "earlier", "rouge"), -1),
    Column("Same person ROUGE-L", ("after", "sets", "same_person", "rouge"), 1),
    Column("Retain ROUGE-L", ("after", "sets", "retain", "rouge"), 1),
    Column("Retain prob.", ("after", "sets", "retain", "probability"), 1),
    Column("Held-out ROUGE-L", ("after", "sets", "held_out", "rouge"), 1),
    Column("Held-out prob.", ("after", "sets", "held_out", "probability"), 1),
    Column("[UNL] on retain %", ("after", "sets", "retain", "emits_unl"), -1, 100.0, 1),
    Column("Flagged forget %", ("after", "sets", "forget", "flagged"), 1, 100.0, 1),
    Column("Flagged retain %", ("after", "sets", "retain", "flagged"), -1, 100.0, 1),
    Column("Neighbour ROUGE-L", ("after", "sets", "neighbor", "rouge"), 1),
    Column("Neighbour prob.", ("after", "sets", "neighbor", "probability"), 1),
    Column("Forget FB", ("after", "rwku", "forget_fb"), -1, 100.0, 1),
    Column("Forget QA", ("after", "rwku", "forget_qa"), -1, 100.0, 1),
    Column("Forget AA", ("after", "rwku", "forget_aa"), -1, 100.0, 1),
    Column("Forget All", ("after", "rwku", "forget_all"), -1, 100.0, 1),
    Column("Earlier All", ("after", "rwku", "earlier_all"), -1, 100.0, 1),
    Column("Neighbour FB", ("after", "rwku", "neighbor_fb"), 1, 100.0, 1),
    Column("Neighbour QA", ("after", "rwku", "neighbor_qa"), 1, 100.0, 1),
    Column("Neighbour All", ("after", "rwku", "neighbor_all"), 1, 100.0, 1),
    Column("FM", ("after", "rwku", "membership", "loss", "forget"), -1),
    Column("RM", ("after", "rwku", "membership", "loss", "retain"), 1),
    Column("AUC", ("after", "rwku", "membership", "loss", "auc")),
    Column("Gen", ("after", "rwku", "gen"), 1, 100.0, 1),
    Column("Rea", ("after", "rwku", "rea"), 1, 100.0, 1),
    Column("Tru", ("after", "rwku", "tru"), 1, 100.0, 1),
    Column("Fac", ("after", "rwku", "fac"), 1, 100.0, 1),
    Column("Flu", ("after", "rwku", "flu"), 1, 100.0, 1),
    Column("Model utility", ("after", "model_utility"), 1),
    Column("Forget quality", ("after", "forget_quality"), 1),
    Column("Unlearning s", ("seconds", "unlearning"), 0, 1.0, 1),
    Column("Changed %", ("changed_share",), 0, 100.0, 2),
)


@dataclass(frozen=True)
class Cell:
    """Mean and standard deviation over seeds; rank 1 is the best, 2 the second of its column."""

    mean: float | None
    deviation: float | None
    partial: bool
    rank: int | None = None


@dataclass(frozen=True)
class ResultTable:
    """One table: rows are methods. ``caption`` says what was run, ``notes`` what marks mean."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[Cell, ...]]
    notes: tuple[str, ...]


def describe(record: RunRecord) -> str:
    """What a group of comparable runs has in common, in words."""
    study = f"{record.study}: " if record.study else ""
    notes = f" ({'; '.join(record.notes)})" if record.notes else ""
    where = f"{record.data}/{record.split}, {record.scenario}, {record.model}"
    return f"{study}{where}{notes}"


def comparable_runs(records: Iterable[RunRecord]) -> dict[str, list[RunRecord]]:
    """Records that may be compared, by a name for each group: one study, model, data, scenario.

    Runs that were scored on other rows, or made from other settings of data and scenario, never
    share a group.
    """
    groups: dict[tuple[Any, ...], list[RunRecord]] = {}
    for record in records:
        groups.setdefault(_comparable_with(record), []).append(record)
    taken: dict[str, int] = {}
    named = {}
    for key in sorted(groups, key=repr):
        first = groups[key][0]
        parts = (first.study, first.data, first.split, first.model, first.scenario)
        name = "-".join(part for part in parts if part)
        count = taken[name] = taken.get(name, 0) + 1
        named[name if count == 1 else f"{name}-{count}"] = groups[key]
    return named


def result_tables(records: Iterable[RunRecord]) -> list[ResultTable]:
    """One table for each group of comparable runs."""
    return [_table(name, group) for name, group in comparable_runs(records).items()]


def scored_rows(record: RunRecord) -> tuple[tuple[str, Any], ...]:
    """Number of scored rows by set."""
    sets = (record.after or {}).get("sets", {})
    return tuple((name, scores["rows"]) for name, scores in sets.items())


def _comparable_with(record: RunRecord) -> tuple[Any, ...]:
    where = (record.study, record.data, record.split, record.model, record.scenario)
    return (*where, tuple(record.notes), len(record.rounds), scored_rows(record))


def value(record: RunRecord, path: Sequence[str]) -> float | None:
    """The number at ``path`` in a record, or None."""
    found: Any = {
        "after": record.after,
        "seconds": record.seconds,
        "changed_share": record.changed_share,
    }
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, (int, float)) else None


def _is_partial(record: RunRecord, column: Column) -> bool:
    after = record.after or {}
    name = column.path[-1]
    names = ("FE", "MU") if name == "balance" else (name,)
    return any(after.get(f"{n}_scores") != after.get(f"{n}_scores_full") for n in names)


def _table(name: str, records: Sequence[RunRecord]) -> ResultTable:
    first = records[0]
    by_method: dict[str, list[RunRecord]] = {}
    for record in records:
        by_method.setdefault(record.method, []).append(record)
    rows: dict[str, list[Cell]] = {}
    for method in sorted(by_method):
        seeds = [record.seed for record in by_method[method]]
        if len(set(seeds)) != len(seeds):
            # The same method and seed twice means two settings of the method.
            for record in by_method[method]:
                label = f"{method} ({record.key[:8]})"
                rows[label] = [_cell([record], column) for column in COLUMNS]
        else:
            rows[method] = [_cell(by_method[method], column) for column in COLUMNS]
    used = [i for i in range(len(COLUMNS)) if any(r[i].mean is not None for r in rows.values())]
    if not used:
        raise UserError(f"record {first.key}: no scores to table")
    ranked = {label: list(cells) for label, cells in rows.items()}
    for i in used:
        for label, rank in _ranks({k: r[i] for k, r in rows.items()}, COLUMNS[i]).items():
            cell = rows[label][i]
            ranked[label][i] = Cell(cell.mean, cell.deviation, cell.partial, rank)
    columns = tuple(COLUMNS[i] for i in used)
    cells = {label: tuple(r[i] for i in used) for label, r in ranked.items()}
    notes = []
    if any(cell.partial for r in cells.values() for cell in r):
        after = first.after or {}
        counts = ", ".join(
            f"{n} from {after[f'{n}_scores']:g} of {after[f'{n}_scores_full']:g} scores"
            for n in ("FE", "RE", "MU")
            if after.get(f"{n}_scores_full")
        )
        notes.append(f"† partial: {counts}; the others need models that were not configured")
    seeds = sorted({record.seed for record in records})
    scored = ", ".join(f"{name} {count:g}" for name, count in scored_rows(first))
    versions = ", ".join(
        f"{name} {first.versions[name]}" for name in ("torch", "transformers") if first.versions
    )
    caption = (
        describe(first)
        + f". Rows scored: {scored}. Seeds: {', '.join(map(str, seeds))}"
        + (f". {versions}" if versions else "")
    )
    return ResultTable(name, caption, columns, cells, tuple(notes))


def _cell(records: Sequence[RunRecord], column: Column) -> Cell:
    values = [value(record, column.path) for record in records]
    if any(v is None for v in values):
        return Cell(None, None, False)
    numbers = [v for v in values if v is not None]
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    partial = any(_is_partial(record, column) for record in records)
    return Cell(statistics.fmean(numbers), deviation, partial)


UNRANKED = ("none", "retrain")
"""Not unlearning methods but the ends of the scale: never marked best."""


def _ranks(cells: Mapping[str, Cell], column: Column) -> dict[str, int]:
    """1 for the best shown value, 2 for the second; ties share a rank."""
    if column.better == 0:
        return {}
    shown = {
        label: round(cell.mean * column.scale, column.digits) * column.better
        for label, cell in cells.items()
        if cell.mean is not None and label.split(" ")[0] not in UNRANKED
    }
    if len(shown) < 2:
        return {}
    best = sorted(set(shown.values()), reverse=True)[:2]
    return {label: best.index(v) + 1 for label, v in shown.items() if v in best}
