"""What became of the runs of a sweep.

python scripts/status.py [--runs runs] [--verbose] [OVERRIDE ...]

With the overrides of a sweep (method=unierase,npo_gd data=tofu ...), its runs alone, and those that
are missing. Counts them by experiment and status, from their records; names those that failed or
were broken off, why, and the command that runs each again. A run whose process is gone without a
word is told from one that still goes on by its lock. Exit code 1 while any is not finished.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from hydra.errors import HydraException
from rich.console import Console
from rich.table import Table

from unierase.app import config_root
from unierase.errors import UserError
from unierase.experiment.progress import ORDER, RunStatus, run_statuses
from unierase.run_names import register_resolvers, run_subdir


def overview(runs: list[RunStatus]) -> Table:
    """Number of runs by experiment and status."""
    table = Table()
    table.add_column("experiment", overflow="fold")
    used = [status for status in ORDER if any(run.status == status for run in runs)]
    for status in used:
        table.add_column(status, justify="right", no_wrap=True)
    for experiment in sorted({run.experiment for run in runs}):
        own = [run.status for run in runs if run.experiment == experiment]
        table.add_row(experiment, *(str(own.count(status) or "") for status in used))
    return table


def expected(overrides: list[str]) -> list[tuple[str, str]]:
    """Folder below the runs, and command, of every run of a sweep."""
    from hydra import compose, initialize_config_dir
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(overrides)
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    with initialize_config_dir(str(config_root()), version_base="1.3"):
        return [
            (run_subdir(compose("config", list(job))), shlex.join(["python", "run.py", *job]))
            for job in jobs
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description="What became of the runs of a sweep.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder with runs")
    parser.add_argument("--verbose", action="store_true", help="list every run")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="those of a sweep")
    arguments = parser.parse_args()
    register_resolvers()
    try:
        runs = run_statuses(
            arguments.runs, expected(arguments.overrides) if arguments.overrides else ()
        )
    except (UserError, HydraException) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    console = Console()
    console.print(overview(runs))
    for run in runs:
        if arguments.verbose or run.status not in ("finished", "running"):
            console.print(f"{run.status}: {run.folder}{run.why}", soft_wrap=True, highlight=False)
            if run.command and run.status != "finished":
                console.print(f"    {run.command}", soft_wrap=True, highlight=False)
    return 0 if all(run.status == "finished" for run in runs) else 1


if __name__ == "__main__":
    sys.exit(main())
