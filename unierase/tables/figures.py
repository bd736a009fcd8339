"""Figures: forgetting against keeping, sequences round by round, cost against Balance."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

from unierase.experiment.record import RunRecord
from unierase.tables.columns import attacks_of
from unierase.tables.table import UNRANKED, best_settings, by_settings, describe, mean_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREYS = dict(zip(UNRANKED, ("0.75", "0.5"), strict=True))
"""Of the yardsticks."""
MARKERS = "osD^vP*X<"
COLOURS = tuple(f"C{i}" for i in range(10))


@dataclass(frozen=True)
class Style:
    """How a method is drawn."""

    color: str
    marker: str


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Of every method, by name: no two of ninety look the same, and the yardsticks, which come
    first, are grey."""
    ordered = sorted(set(methods), key=lambda m: (m not in GREYS, m))
    return {
        method: Style(GREYS.get(method, COLOURS[i % len(COLOURS)]), MARKERS[i % len(MARKERS)])
        for i, method in enumerate(ordered)
    }


@dataclass(frozen=True)
class Curve:
    """One method: retained utility MU and forget efficacy FE of each of its settings, means over
    seeds, in order of MU."""

    method: str
    retained: tuple[float, ...]
    forgotten: tuple[float, ...]


def trade_off(records: Sequence[RunRecord]) -> list[Curve]:
    """A curve for every method; runs without MU or FE are left out."""
    points: dict[str, list[tuple[float, float]]] = {}
    for own in by_settings(records).values():
        retained, forgotten = (mean_of(own, ("after", name)) for name in ("MU", "FE"))
        if retained is not None and forgotten is not None:
            points.setdefault(own[0].method, []).append((retained, forgotten))
    return [
        Curve(method, *zip(*sorted(own), strict=True)) for method, own in sorted(points.items())
    ]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points than which no other is at least as high in both and higher in one, by the
    first coordinate."""
    best: list[tuple[float, float]] = []
    for point in sorted(set(points), reverse=True):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best[::-1]


def before(records: Sequence[RunRecord]) -> tuple[float, float] | None:
    """MU and FE of the target, where the first record has them."""
    metrics = records[0].before or {}
    retained, forgotten = metrics.get("MU"), metrics.get("FE")
    return None if retained is None or forgotten is None else (retained, forgotten)


def trade_off_figure(records: Sequence[RunRecord]) -> Figure:
    """FE against MU of comparable runs; better is up and to the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    curves = {curve.method: curve for curve in trade_off(records)}
    for method, style in styles(curves).items():
        curve = curves[method]
        axes.plot(
            curve.retained,
            curve.forgotten,
            color=style.color,
            marker=style.marker,
            linewidth=1,
            label=method,
        )
    front = pareto_front(
        [p for c in curves.values() for p in zip(c.retained, c.forgotten, strict=True)]
    )
    axes.plot(
        *zip(*front, strict=True), color="grey", linestyle=":", zorder=0, label="Pareto front"
    )
    start = before(records)
    if start is not None:
        axes.plot(*start, marker="+", color="black", linestyle="none", label="before unlearning")
    axes.set_xlabel("retained utility MU (higher is better)")
    axes.set_ylabel("forget efficacy FE (higher is better)")
    axes.set_title(fill(describe(records[0]), 75), fontsize=8)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def svg(figure: Figure) -> str:
    """The figure as an SVG element, to be put into a page; the same for the same figure."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "unierase"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


CURVES = (
    ("forget efficacy FE", ("FE",)),
    ("retained utility MU", ("MU",)),
    ("earlier tasks' ROUGE-L", ("sets", "earlier", "rouge")),
    ("retained rows' ROUGE-L", ("sets", "retain", "rouge")),
)


def rounds_figure(records: Sequence[RunRecord]) -> Figure | None:
    """What each request of a sequence left, means over seeds; None for single requests."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    rounds = max(len(record.rounds) for record in records)
    if rounds < 2:
        return None
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    runs = by_settings(records)
    look = styles(runs)
    for place, (title, path) in enumerate(CURVES, start=1):
        axes = figure.add_subplot(2, 2, place)
        for method, style in look.items():
            points = [
                (n + 1, mean_of(runs[method], ("rounds", n, "metrics", *path)))
                for n in range(rounds)
            ]
            seen = [(n, mean) for n, mean in points if mean is not None]
            if seen:
                axes.plot(
                    *zip(*seen, strict=True),
                    color=style.color,
                    marker=style.marker,
                    linewidth=1,
                    markersize=4,
                    label=method,
                )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("requests so far")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    # Of the first panel, which has every method; the others are drawn alike.
    handles, _ = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside right center", fontsize=8)
    figure.suptitle(fill(describe(records[0]), 110), fontsize=8)
    return figure


def attacks_figure(records: Sequence[RunRecord]) -> Figure | None:
    """What each attack brings back of the forget set, means over seeds; None without attacks."""
    from matplotlib.figure import Figure

    attacks = attacks_of(records[0])
    if not attacks:
        return None
    paths = {
        "no attack": ("after", "sets", "forget", "rouge"),
        **{attack: ("after", "attacks", attack, "forget_rouge") for attack in attacks},
    }
    runs = by_settings(records)
    look = styles(runs)
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    axes = figure.add_subplot()
    width = 0.85 / len(look)
    for i, (method, style) in enumerate(look.items()):
        heights = [mean_of(runs[method], path) for path in paths.values()]
        places = [n + (i - (len(look) - 1) / 2) * width for n in range(len(paths))]
        shown = [(place, h) for place, h in zip(places, heights, strict=True) if h is not None]
        axes.bar(
            [p for p, _ in shown], [h for _, h in shown], width, label=method, color=style.color
        )
    axes.set_xticks(range(len(paths)), [name.replace("_", " ") for name in paths], fontsize=8)
    axes.set_ylabel("forget ROUGE-L (lower is better)")
    axes.set_ylim(0, 1.02)
    axes.set_title(fill(describe(records[0]), 140), fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def cost_figure(records: Sequence[RunRecord]) -> Figure | None:
    """Balance against the seconds that unlearning took, means over seeds; None without either.

    Without the yardsticks: a model that was retrained once is at hand in later runs.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    points = {}
    runs = by_settings(records)
    for method in runs.keys() - set(UNRANKED):
        own = runs[method]
        seconds, balance = (
            mean_of(own, path) for path in (("seconds", "unlearning"), ("after", "balance"))
        )
        if seconds and balance is not None:
            points[method] = (seconds, balance)
    if not points:
        return None
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for method, style in styles(runs).items():
        if method in points:
            axes.plot(
                *points[method],
                color=style.color,
                marker=style.marker,
                linestyle="none",
                label=method,
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    longest, shortest = (pick(seconds for seconds, _ in points.values()) for pick in (max, min))
    # Within one decade the ticks between powers of ten are all there is to read.
    axes.xaxis.set_minor_formatter("{x:g}" if longest < 10 * shortest else NullFormatter())
    axes.margins(0.1)
    axes.set_xlabel("seconds of unlearning (log scale)")
    axes.set_ylabel("Balance (higher is better)")
    axes.set_title(fill(describe(records[0]), 75), fontsize=8)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def group_figures(name: str, records: Sequence[RunRecord]) -> dict[str, Figure]:
    """Every figure there is of comparable runs, by file name; none without FE and MU. All but the
    first show every method once."""
    if not trade_off(records):
        return {}
    once = best_settings(records)
    figures = {
        name: trade_off_figure(records),
        f"{name}-rounds": rounds_figure(once) if records[0].scenario == "sequential" else None,
        f"{name}-attacks": attacks_figure(once),
        f"{name}-cost": cost_figure(once),
    }
    return {file: figure for file, figure in figures.items() if figure is not None}
