"""Turn every run found so far into tables.

python scripts/make_tables.py [--runs runs] [--out tables] [--intervals]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unierase.errors import UserError
from unierase.files import write_text
from unierase.tables.figures import svg, trade_off, trade_off_figure
from unierase.tables.load import load_records
from unierase.tables.page import page
from unierase.tables.render import comma_separated, latex, markdown
from unierase.tables.table import comparable_runs, result_tables


def main() -> int:
    parser = argparse.ArgumentParser(description="Turn every run found so far into tables.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder with runs")
    parser.add_argument("--out", type=Path, default=Path("tables"), help="folder to write to")
    parser.add_argument(
        "--intervals", action="store_true", help="single runs with bootstrap intervals over rows"
    )
    arguments = parser.parse_args()
    try:
        records = load_records(arguments.runs)
        if not records.finished:
            raise UserError(f"runs={arguments.runs}: no finished run in it")
        tables = result_tables(records.finished, arguments.intervals)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for table in tables:
        write_text(arguments.out / f"{table.name}.md", markdown(table))
        write_text(arguments.out / f"{table.name}.tex", latex(table))
        write_text(arguments.out / f"{table.name}.csv", comma_separated(table))
        print(markdown(table))
    figures = {
        name: svg(trade_off_figure(group))
        for name, group in comparable_runs(records.finished).items()
        if trade_off(group)
    }
    title = "UniErase Bench: results"
    write_text(arguments.out / "index.html", page(title, tables, figures, records.left_out))
    for line in records.left_out:
        print(f"left out: {line}", file=sys.stderr)
    everything = arguments.out / "index.html"
    print(
        f"{len(tables)} table(s) as Markdown, LaTeX and CSV in {arguments.out}, all in {everything}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
