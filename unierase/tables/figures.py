"""The trade-off between forgetting and keeping, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unierase.experiment.record import RunRecord
from unierase.tables.table import describe, value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vP*X<>"


@dataclass(frozen=True)
class Curve:
    """Runs of one method: retained utility MU, forget efficacy FE, in order of MU."""

    method: str
    retained: tuple[float, ...]
    forgotten: tuple[float, ...]


def trade_off(records: Sequence[RunRecord]) -> list[Curve]:
    """A curve for every method; runs without MU or FE are left out."""
    points: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        retained, forgotten = value(record, ("after", "MU")), value(record, ("after", "FE"))
        if retained is not None and forgotten is not None:
            points.setdefault(record.method, []).append((retained, forgotten))
    return [
        Curve(method, *zip(*sorted(own), strict=True)) for method, own in sorted(points.items())
    ]


def before(records: Sequence[RunRecord]) -> tuple[float, float] | None:
    """MU and FE of the target, where the first record has them."""
    metrics = records[0].before or {}
    retained, forgotten = metrics.get("MU"), metrics.get("FE")
    return None if retained is None or forgotten is None else (retained, forgotten)


def trade_off_figure(records: Sequence[RunRecord]) -> Figure:
    """FE against MU of comparable runs; better is up and to the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for i, curve in enumerate(trade_off(records)):
        axes.plot(
            curve.retained,
            curve.forgotten,
            marker=MARKERS[i % len(MARKERS)],
            linewidth=1,
            label=curve.method,
        )
    start = before(records)
    if start is not None:
        axes.plot(*start, marker="+", color="black", linestyle="none", label="before unlearning")
    axes.set_xlabel("retained utility MU (higher is better)")
    axes.set_ylabel("forget efficacy FE (higher is better)")
    axes.set_title(describe(records[0]), fontsize=8, wrap=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
