"""Write docs/results.md from the records of a study, and keep the records beside it.

python scripts/make_results.py [--runs runs] [--study paper] [--out docs/results.md]
                               [--readme README.md]

Records that an earlier call kept count as well: a study may be run in parts. --readme: a document
that gets a table of all methods, between its lines <!-- overview --> and <!-- end of overview -->.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from unierase.errors import UserError
from unierase.files import write_text
from unierase.tables.figures import group_figures
from unierase.tables.load import COMPACT, load_records, write_compact
from unierase.tables.overview import with_overview
from unierase.tables.report import merged, report
from unierase.tables.table import comparable_runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder with runs")
    parser.add_argument("--study", default="paper", help="runs of this study only")
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    parser.add_argument(
        "--readme", type=Path, help="a document that gets an overview between its marks"
    )
    arguments = parser.parse_args()
    out: Path = arguments.out
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    folders = [path for path in (folder, arguments.runs) if path.is_dir()]
    found = {r.key: r for path in folders for r in load_records(path).finished}
    records = [record for record in found.values() if record.study == arguments.study]
    if not records:
        error = UserError(f"runs={arguments.runs}: no finished run of study={arguments.study}")
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_compact(records, folder / COMPACT)
    # As they are read from there: the same document whether or not the runs are still at hand.
    records = list(load_records(folder).finished)
    figures: dict[str, list[str]] = {}
    for name, group in comparable_runs(records).items():
        for file, figure in group_figures(name, group).items():
            figure.savefig(folder / f"{file}.png", dpi=110)
            figures.setdefault(name, []).append(f"{folder.name}/{file}.png")
    drawn = {Path(path).name for paths in figures.values() for path in paths}
    for stale in folder.glob(f"{arguments.study}-*.png"):
        if stale.name not in drawn:
            stale.unlink()
    written = out.read_text() if out.exists() else "# Results\n"
    write_text(out, merged(written, report(records, figures)))
    if arguments.readme is not None:
        readme = arguments.readme.read_text()
        write_text(arguments.readme, with_overview(readme, records))
    print(f"{len(records)} runs in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
