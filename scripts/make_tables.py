"""Turn every run found so far into tables.

python scripts/make_tables.py [--runs runs] [--out tables]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unierase.errors import UserError
from unierase.files import write_text
from unierase.tables.load import load_records
from unierase.tables.render import comma_separated, latex, markdown
from unierase.tables.table import result_tables


def main() -> int:
    parser = argparse.ArgumentParser(description="Turn every run found so far into tables.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder with runs")
    parser.add_argument("--out", type=Path, default=Path("tables"), help="folder to write to")
    arguments = parser.parse_args()
    try:
        records = load_records(arguments.runs)
        if not records.finished:
            raise UserError(f"runs={arguments.runs}: no finished run in it")
        tables = result_tables(records.finished)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for table in tables:
        write_text(arguments.out / f"{table.name}.md", markdown(table))
        write_text(arguments.out / f"{table.name}.tex", latex(table))
        write_text(arguments.out / f"{table.name}.csv", comma_separated(table))
        print(markdown(table))
    for line in records.left_out:
        print(f"left out: {line}", file=sys.stderr)
    print(f"{len(tables)} table(s) in {arguments.out} (Markdown, LaTeX, CSV)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
