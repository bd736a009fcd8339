"""What became of the runs of one sweep: told by the processes that ran them, wherever they were."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from unierase.files import read_json, write_json

JOURNAL = "UNIERASE_SWEEP"
"""The folder of a sweep's journal, for the processes a launcher starts: they inherit it, SLURM's
jobs too."""
OUTCOMES = ("finished", "skipped", "failed", "interrupted")


class OpenJournal(Callback):
    """Opens a journal for every sweep."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        runs = Path(str(config.paths.runs)).resolve()
        os.environ[JOURNAL] = str(runs / ".sweeps" / secrets.token_hex(8))


def in_sweep() -> bool:
    """Whether this process runs for a sweep."""
    return JOURNAL in os.environ


def note(folder: Path, outcome: str, command: str, code: int = 0) -> None:
    """Report the run in ``folder`` to its sweep, if it belongs to one. code: its exit code."""
    if in_sweep():
        values = {"folder": str(folder), "outcome": outcome, "command": command, "code": code}
        write_json(Path(os.environ[JOURNAL]) / f"{folder.name}.json", values)


def summary() -> tuple[list[str], int]:
    """What to tell of the sweep, and its exit code: 0 if every run that reported is finished."""
    paths = Path(os.environ[JOURNAL]).glob("*.json") if in_sweep() else ()
    entries = [read_json(path) for path in sorted(paths)]
    counts = Counter(entry["outcome"] for entry in entries)
    numbers = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome])
    failed = [entry for entry in entries if entry["outcome"] not in ("finished", "skipped")]
    lines = [f"{len(entries)} run{'s' * (len(entries) != 1)}: {numbers}"] if entries else []
    if failed:
        lines.append("to run again what is not finished:")
        lines += [f"    {entry['command']}" for entry in failed]
    return lines, min((entry["code"] for entry in failed), default=0)
