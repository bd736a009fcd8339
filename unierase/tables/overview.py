"""Every method in one table, whatever a study ran it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from unierase.experiment.record import RunRecord
from unierase.tables.columns import SCORES, attacks_of
from unierase.tables.render import grid
from unierase.tables.table import (
    UNRANKED,
    Cell,
    ResultTable,
    best_settings,
    comparable_runs,
    table_of,
    untuned,
)

START, END = "<!-- overview -->", "<!-- end of overview -->"
"""Between these lines of a document stands the table; the rest is somebody's words."""

SHOWN = {
    "batch": ("FE", "MU", "Balance", "Held-out ROUGE-L"),
    "sequential": ("Balance", "Earlier ROUGE-L", "Held-out ROUGE-L"),
    "precise": ("Balance", "Same person ROUGE-L"),
}
"""What is shown of a scenario; of real people Balance alone."""

TITLES = {"sequential": "in a row", "precise": "one question"}
PEOPLE = {"rwku": "RWKU", "return": "RETURN"}


def overview(records: Sequence[RunRecord]) -> ResultTable | None:
    """A row for each method and columns from each kind of runs, there with its best settings; the
    yardsticks first, then by the first Balance. A column of partial scores alone has its mark in
    its heading. None without runs.

    Left out: runs under attack, and a second group of runs of one data set and scenario.
    """
    first: dict[tuple[str, str], ResultTable] = {}
    for name, group in comparable_runs(r for r in records if not attacks_of(r)).items():
        kind = (group[0].scenario, group[0].data)
        wanted = ("Balance",) if group[0].data in PEOPLE else SHOWN[group[0].scenario]
        columns = [replace(c, digits=2) for c in SCORES if c.name in wanted]
        table = table_of(name, best_settings(group), columns)
        own = {untuned(label): cells for label, cells in table.rows.items()}
        first.setdefault(kind, replace(table, rows=own))
    kinds = sorted(first, key=lambda kind: (kind[1] in PEOPLE, list(SHOWN).index(kind[0]), kind))
    labels = {label for table in first.values() for label in table.rows}
    columns = [
        replace(column, name=f"{_title(*kind)}: {column.name}")
        for kind in kinds
        for column in first[kind].columns
    ]
    rows = {
        label: [
            cell
            for kind in kinds
            for cell in first[kind].rows.get(label, (_MISSING,) * len(first[kind].columns))
        ]
        for label in labels
    }
    if not columns:
        return None
    for i, column in enumerate(columns):
        if all(cells[i].partial for cells in rows.values() if cells[i].mean is not None):
            columns[i] = replace(column, name=f"{column.name}†")
            for cells in rows.values():
                cells[i] = replace(cells[i], partial=False)
    balance = next(i for i, column in enumerate(columns) if "Balance" in column.name)

    def place(label: str) -> tuple[int, float, str]:
        yardstick = UNRANKED.index(label) if label in UNRANKED else len(UNRANKED)
        mean = rows[label][balance].mean
        return yardstick, 0.0 if mean is None else -mean, label

    ordered = {label: tuple(rows[label]) for label in sorted(labels, key=place)}
    return ResultTable("overview", "", tuple(columns), ordered, ())


_MISSING = Cell(None, None, False)


def _title(scenario: str, data: str) -> str:
    if data in PEOPLE:
        return PEOPLE[data]
    return TITLES.get(scenario, scenario)


def with_overview(document: str, records: Sequence[RunRecord]) -> str:
    """``document`` with the table between its marks; as it is without marks or runs."""
    head, start, rest = document.partition(START)
    _, end, tail = rest.partition(END)
    table = overview(records)
    if not start or not end or table is None:
        return document
    return f"{head}{START}\n{grid(table)}\n{END}{tail}"
