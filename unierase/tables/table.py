"""A results table: which records belong together, and what its cells hold."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unierase.experiment.record import RunRecord
from unierase.tables.columns import (
    COST,
    MEMORISATION,
    SCORES,
    Column,
    attacks_of,
    by_attack,
    by_round,
    interval,
    value,
)


@dataclass(frozen=True)
class Cell:
    """Mean and standard deviation over seeds; rank 1 is the best, 2 the second of its column.

    interval: of a single run, the bootstrap interval over rows, where it was asked for.
    """

    mean: float | None
    deviation: float | None
    partial: bool
    rank: int | None = None
    interval: tuple[float, float] | None = None


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
    """Records that may be compared, by a name for each group: one study, model, data, scenario,
    and whether they were attacked.

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
        attacked = "robust" if attacks_of(first) else ""
        parts = (first.study, first.data, first.split, first.model, first.scenario, attacked)
        name = "-".join(part for part in parts if part)
        count = taken[name] = taken.get(name, 0) + 1
        named[name if count == 1 else f"{name}-{count}"] = groups[key]
    return named


def result_tables(records: Iterable[RunRecord], intervals: bool = False) -> list[ResultTable]:
    """Of each group of comparable runs: its scores, a sequence round by round, what attacks bring
    back, what the weights still hold, and its cost.

    intervals: single runs are shown with their bootstrap intervals.
    """
    tables = []
    first: dict[tuple[Any, ...], tuple[str, RunRecord]] = {}
    for name, group in comparable_runs(records).items():
        notes = [*headlines(group), *_uneven_seeds(group), *_other_targets(group)]
        alike, other = first.setdefault(_where(group[0]), (name, group[0]))
        if alike != name:
            notes.append(f"apart from {alike}: {_difference(other, group[0])}")
        tables.append(table_of(name, group, SCORES, notes, intervals))
        rounds = len(group[0].rounds)
        if group[0].scenario == "sequential" and rounds > 1:
            tables.append(table_of(f"{name}-rounds", group, by_round(rounds)))
        if attacks := attacks_of(group[0]):
            tables.append(table_of(f"{name}-attacks", group, by_attack(attacks)))
        tables.append(table_of(f"{name}-memorisation", group, MEMORISATION))
        tables.append(table_of(f"{name}-cost", group, COST))
    return [table for table in tables if table.columns]


@dataclass(frozen=True)
class Comparison:
    """An edit against baselines, as the two sentences of the UniErase paper (arXiv
    2505.15674) compare them; over means of seeds. None: a number is missing.

    method: the edit. baselines: how many methods it is compared with; settings: how many of those,
    counted once for each of their settings.
    best: who has the best Balance, the edit and its baselines compared.
    forgets, retains: the baselines with the best FE and the best MU (None: RWKU has neither).
    ability: the edit's over that of ``forgets``. efficacy: its FE over that of ``retains``, less 1.
    """

    method: str
    baselines: int
    settings: int
    best: str | None
    forgets: str | None
    retains: str | None
    ability: float | None
    efficacy: float | None


EDITS = ("unierase", "unierase_retain", "unierase_deep")
"""What is compared as the paper compares its edit: that edit, the retain-aware one, and the one
against the whole answer."""


PAPER_BASELINES = (
    "ga_gd",
    "ga_kl",
    "npo_gd",
    "npo_kl",
    "me_gd",
    "dpo_gd",
    "dpo_kl",
    "idk_ap",
)
"""Those of the UniErase paper."""


def comparison(
    records: Sequence[RunRecord], edit: str = EDITS[0], baselines: Sequence[str] | None = None
) -> Comparison | None:
    """Comparable runs as the paper compares them; None without the edit and a baseline that have
    FE and MU, or at least a Balance.

    baselines: the methods compared with, tuned or not; None: all but variants of the edit.
    """
    means: dict[str, dict[str, float]] = {}
    names = {"FE": ("FE",), "MU": ("MU",), "balance": ("balance",), "ability": _ABILITY}
    for method, own in by_settings(records).items():
        for name, path in names.items():
            mean = mean_of(own, ("after", *path))
            if mean is not None:
                means.setdefault(method, {})[name] = mean
    full = [method for method, v in means.items() if {"FE", "MU"} <= v.keys()]
    known = sorted(m for m, v in means.items() if m in full or "balance" in v)
    edits = [m for name in (f"{edit}-tuned", edit) for m in known if method_of(m) == name]
    others = [m for m in known if method_of(m) not in UNRANKED and not m.startswith("unierase")]
    if baselines is not None:
        others = [m for m in others if untuned(m) in baselines]
    if not edits or not others:
        return None
    counts = (len({untuned(m) for m in others}), len(others))
    ours = means[edits[0]]
    measured = [m for m in others if m in full] if edits[0] in full else []
    balanced = [m for m in (edits[0], *others) if "balance" in means[m]]
    best = max(balanced, key=lambda m: means[m]["balance"]) if balanced else None
    if not measured:
        return Comparison(edits[0], *counts, best, None, None, None, None)
    forgets = max(measured, key=lambda m: means[m]["FE"])
    retains = max(measured, key=lambda m: means[m]["MU"])
    ability = None
    if "ability" in ours and means[forgets].get("ability"):
        ability = ours["ability"] / means[forgets]["ability"]
    efficacy = ours["FE"] / means[retains]["FE"] - 1
    return Comparison(edits[0], *counts, best, forgets, retains, ability, efficacy)


_ABILITY = ("ability", "accuracy")


def method_of(label: str) -> str:
    """The method of a record's label, without what was set of it."""
    return label.partition(" (")[0]


def untuned(label: str) -> str:
    """The method of a record's label, whether its settings were tuned or not."""
    return method_of(label).removesuffix("-tuned")


def headlines(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """``comparison`` in words."""
    found = comparison(records)
    if found is None:
        return ()
    words = []
    if found.ability is not None:
        words.append(
            f"{found.method}'s ability is {found.ability:.2f} times that of {found.forgets}, the "
            "other method with the best FE"
        )
    if found.efficacy is not None:
        more = 100 * found.efficacy
        words.append(
            f"{found.method}'s FE is {abs(more):.1f} % {'above' if more >= 0 else 'below'} that of "
            f"{found.retains}, the other method with the best MU"
        )
    return tuple(words)


def scored_rows(record: RunRecord) -> tuple[tuple[str, Any], ...]:
    """Number of scored rows by set."""
    sets = (record.after or {}).get("sets", {})
    return tuple((name, scores["rows"]) for name, scores in sets.items())


def _comparable_with(record: RunRecord) -> tuple[Any, ...]:
    # Which rows are held out is drawn by the seed, and so how many of them lie in one half.
    rows = tuple(of for of in scored_rows(record) if of[0] != "held_out")
    scored = (rows, tuple(attacks_of(record)))
    return (*_where(record), tuple(record.notes), len(record.rounds), scored)


def _where(record: RunRecord) -> tuple[Any, ...]:
    return (record.study, record.data, record.split, record.model, record.scenario)


def _difference(one: RunRecord, other: RunRecord) -> str:
    """Why two runs of the same experiment are not comparable."""
    if one.notes != other.notes:
        return f"{'; '.join(other.notes) or 'nothing left out'}, not {'; '.join(one.notes)}"
    if len(one.rounds) != len(other.rounds):
        return f"{len(other.rounds)} requests, not {len(one.rounds)}"
    return "other rows were scored"


def _uneven_seeds(records: Sequence[RunRecord]) -> list[str]:
    """Which methods lack seeds that others have."""
    seeds = {record.seed for record in records}
    having: dict[tuple[int, ...], list[str]] = {}
    for label, runs in by_settings(records).items():
        own = tuple(sorted(record.seed for record in runs))
        having.setdefault(own, []).append(label)
    return [
        f"seed {', '.join(map(str, own))} only: {', '.join(labels)}"
        for own, labels in sorted(having.items())
        if set(own) != seeds
    ]


SAME_TARGET = 0.02
"""By how much the scores of two targets, taught alike on two kinds of machine, may differ."""


def _other_targets(records: Sequence[RunRecord]) -> list[str]:
    """Methods that began with another model than the first one did: one that scored otherwise,
    on some set, before unlearning."""
    apart: dict[str, float] = {}
    first = min(records, key=lambda record: record.label)
    for record in records:
        off = [
            abs(one - other)
            for name in (first.before or {}).get("sets", {})
            for score in ("probability", "rouge")
            if (one := value(first, ("before", "sets", name, score))) is not None
            and (other := value(record, ("before", "sets", name, score))) is not None
        ]
        if record.seed == first.seed and off and max(off) > SAME_TARGET:
            apart[record.label] = max(apart.get(record.label, 0.0), *off)
    if not apart:
        return []
    return [
        f"before unlearning, the model of {', '.join(sorted(apart))} scored otherwise than that of "
        f"{first.label}, by up to {max(apart.values()):.3f}"
    ]


def by_settings(records: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Comparable runs of one method with the same settings, which differ by their seeds, by
    label."""
    labels: dict[str, list[RunRecord]] = {}
    for record in records:
        labels.setdefault(record.label, []).append(record)
    result: dict[str, list[RunRecord]] = {}
    for label, own in sorted(labels.items()):
        if len({record.seed for record in own}) == len(own):
            result[label] = own
        else:  # one label and seed twice: settings that were not recorded
            result |= {f"{label} ({record.key[:8]})": [record] for record in own}
    return result


def best_settings(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Of a method that was run with several settings, tuned ones included, the runs with those of
    the highest Balance, means over seeds."""
    labels: dict[str, set[str]] = {}
    for record in records:
        labels.setdefault(untuned(record.label), set()).add(record.label)

    def balance(label: str) -> float:
        mean = mean_of([r for r in records if r.label == label], ("after", "balance"))
        return -1.0 if mean is None else mean

    kept = {max(sorted(own), key=balance) for own in labels.values()}
    return [record for record in records if record.label in kept]


def mean_of(records: Sequence[RunRecord], path: Sequence[str | int]) -> float | None:
    """The mean of a number over records; None where one has none."""
    values = [value(record, path) for record in records]
    present = [v for v in values if v is not None]
    return statistics.fmean(present) if present and len(present) == len(values) else None


def _is_partial(record: RunRecord, column: Column) -> bool:
    after = record.after or {}
    name = str(column.path[-1])
    names = ("FE", "MU") if name == "balance" else (name,)
    return any(after.get(f"{n}_scores") != after.get(f"{n}_scores_full") for n in names)


def table_of(
    name: str,
    records: Sequence[RunRecord],
    of: Sequence[Column],
    more: Sequence[str] = (),
    intervals: bool = False,
) -> ResultTable:
    """Comparable runs: a row for each method with the same settings, a column for each ``of`` that
    some row has. more: notes beside those on marks."""
    first = records[0]
    rows = {
        label: [_cell(own, column, intervals) for column in of]
        for label, own in by_settings(records).items()
    }
    used = [i for i in range(len(of)) if any(r[i].mean is not None for r in rows.values())]
    ranked = {label: list(cells) for label, cells in rows.items()}
    for i in used:
        for label, rank in _ranks({k: r[i] for k, r in rows.items()}, of[i]).items():
            cell = rows[label][i]
            ranked[label][i] = replace(cell, rank=rank)
    columns = tuple(of[i] for i in used)
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
    if any(cell.interval for r in cells.values() for cell in r):
        notes.append("in brackets 95 % bootstrap intervals over rows")
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
    return ResultTable(name, caption, columns, cells, (*notes, *more))


def _cell(records: Sequence[RunRecord], column: Column, intervals: bool) -> Cell:
    values = [value(record, column.path) for record in records]
    if any(v is None for v in values):
        return Cell(None, None, False)
    numbers = [v for v in values if v is not None]
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    partial = any(_is_partial(record, column) for record in records)
    alone = intervals and len(records) == 1
    around = interval(records[0], column.path) if alone else None
    return Cell(statistics.fmean(numbers), deviation, partial, interval=around)


UNRANKED = ("none", "retrain")
"""Not unlearning methods but the ends of the scale: never marked best."""


def _ranks(cells: Mapping[str, Cell], column: Column) -> dict[str, int]:
    """1 for the best shown value, 2 for the second; ties share a rank."""
    if column.better == 0:
        return {}
    shown = {
        label: float(column.shown(cell.mean)) * column.better
        for label, cell in cells.items()
        if cell.mean is not None and method_of(label) not in UNRANKED
    }
    if len(shown) < 2:
        return {}
    best = sorted(set(shown.values()), reverse=True)[:2]
    return {label: best.index(v) + 1 for label, v in shown.items() if v in best}
