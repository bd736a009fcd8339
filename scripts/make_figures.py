"""Draw every group of comparable runs: forgetting against keeping, sequences, cost.

python scripts/make_figures.py [--runs runs] [--out figures]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unierase.errors import UserError
from unierase.tables.figures import group_figures
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
        drawn = [group_figures(name, group) for name, group in groups.items()]
        if not any(drawn):
            raise UserError(f"runs={arguments.runs}: no finished run with FE and MU in it")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    for figures in drawn:
        for file, figure in figures.items():
            for ending in ("png", "pdf"):
                figure.savefig(arguments.out / f"{file}.{ending}", dpi=200)
            print(arguments.out / f"{file}.png")
    for line in records.left_out:
        print(f"left out: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
