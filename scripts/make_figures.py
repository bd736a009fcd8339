"""Draw forgetting against keeping, one figure for every group of comparable runs.

python scripts/make_figures.py [--runs runs] [--out figures]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unierase.errors import UserError
from unierase.tables.figures import trade_off, trade_off_figure
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
        figure = trade_off_figure(group)
        for ending in ("svg", "pdf"):
            figure.savefig(arguments.out / f"{name}.{ending}")
        print(arguments.out / f"{name}.svg")
    for line in records.left_out:
        print(f"left out: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
