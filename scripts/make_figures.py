"""Draw every group of comparable runs: forgetting against keeping, sequences, cost.

python scripts/make_figures.py [--runs runs] [--out figures]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unierase.errors import UserError
from unierase.tables.figures import (
    attacks_figure,
    cost_figure,
    rounds_figure,
    trade_off,
    trade_off_figure,
)
from unierase.tables.load import load_records
from unierase.tables.table import comparable_runs


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw every run found so far.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder with runs")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder to write to")
    arguments = parser.parse_args()
    try:
        records = load_records(arguments.runs)
        groups = comparable_runs(records.finished)
        drawn = {name: group for name, group in groups.items() if trade_off(group)}
        if not drawn:
            raise UserError(f"runs={arguments.runs}: no finished run with FE and MU in it")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, group in drawn.items():
        figures = {
            name: trade_off_figure(group),
            f"{name}-rounds": rounds_figure(group) if group[0].scenario == "sequential" else None,
            f"{name}-attacks": attacks_figure(group),
            f"{name}-cost": cost_figure(group),
        }
        for file, figure in figures.items():
            if figure is not None:
                for ending in ("png", "pdf"):
                    figure.savefig(arguments.out / f"{file}.{ending}", dpi=200)
                print(arguments.out / f"{file}.png")
    for line in records.left_out:
        print(f"left out: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
