"""What became of runs, from their folders."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from unierase.errors import UserError
from unierase.experiment.record import read_record

LOCK = ".lock"
"""Held by the process that runs the experiment of a folder."""
ORDER = ("finished", "running", "failed", "interrupted", "broken off", "damaged", "missing")


@dataclass(frozen=True)
class RunStatus:
    """One run. why: the reason where it is not finished, to be put behind its folder. command: what
    runs it again, where that is known."""

    folder: Path
    experiment: str
    status: str
    why: str = ""
    command: str | None = None


def is_running(folder: Path) -> bool:
    """Whether a process is at work in ``folder``."""
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True


def run_statuses(runs: Path, expected: Sequence[tuple[str, str]] = ()) -> list[RunStatus]:
    """The status of every run below ``runs``, in order of their folders.

    expected: folders below ``runs``, each with its command; those without a run are missing, and
    others are left out.
    """
    if not runs.is_dir() and not expected:
        raise UserError(f"runs={runs}: no such folder; run an experiment first (python run.py)")
    if expected:
        commands = {runs / folder: command for folder, command in expected}
        return [_status(folder, runs, command) for folder, command in sorted(commands.items())]
    return [_status(path.parent, runs, None) for path in sorted(runs.rglob("result.json"))]


def _status(folder: Path, runs: Path, command: str | None) -> RunStatus:
    experiment = str(folder.relative_to(runs).parent)
    command = command or command_of(folder)
    if not (folder / "result.json").is_file():
        return RunStatus(folder, experiment, "missing", command=command)
    try:
        record = read_record(folder / "result.json")
    except UserError as error:
        return RunStatus(folder, experiment, "damaged", f" ({error})", command)
    status = record.status
    if status == "running" and not is_running(folder):
        status = "broken off"
    why = f" ({record.error['type']}: {record.error['message']})" if record.error else ""
    return RunStatus(folder, experiment, status, why, command)


def command_of(folder: Path) -> str | None:
    """What was typed for the run in ``folder``, as far as it is known."""
    from omegaconf import OmegaConf

    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        return None
    return shlex.join(["python", "run.py", *(str(item) for item in OmegaConf.load(path))])
