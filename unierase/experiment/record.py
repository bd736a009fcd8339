"""The record of a run: ``result.json``. docs/record.md describes it."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from unierase.errors import UserError
from unierase.files import read_json, write_json

SCHEMA = 1
STATUSES = ("running", "finished", "failed", "interrupted")
VOLATILE = ("seconds", "peak_memory_bytes", "versions", "git_commit", "started", "finished")
"""What differs between two runs of the same experiment."""
_PACKAGES = ("torch", "transformers", "datasets", "hydra-core", "lm-eval", "peft", "numpy")


@dataclass
class RunRecord:
    """One run. Metrics are as in ``unierase.scores``; None is what was not computed."""

    key: str
    model: str
    data: str
    split: str
    scenario: str
    method: str
    seed: int
    settings: dict[str, Any] | None = None
    schema: int = SCHEMA
    status: str = "running"
    study: str | None = None
    notes: list[str] = field(default_factory=list)
    limit: int | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    change: dict[str, Any] | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)
    parameters: int | None = None
    changed_share: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    git_commit: str | None = None
    started: str | None = None
    finished: str | None = None
    error: dict[str, str] | None = None

    @property
    def label(self) -> str:
        """The method and what was set of it: records of one label differ by their seeds."""
        if not self.settings:
            return self.method
        return f"{self.method} ({', '.join(f'{k}={v}' for k, v in sorted(self.settings.items()))})"

    def write(self, folder: Path) -> None:
        """Write ``result.json`` into ``folder``, atomically."""
        write_json(folder / "result.json", asdict(self))

    def comparable(self) -> dict[str, Any]:
        """What two runs of the same experiment must have in common, to the bit."""
        values = {k: v for k, v in asdict(self).items() if k not in VOLATILE}
        rounds = [{k: v for k, v in r.items() if k not in VOLATILE} for r in self.rounds]
        return {**values, "rounds": rounds}


def read_record(path: Path) -> RunRecord:
    """The record in ``path`` (result.json), checked; a UserError names file and field."""
    return record_of(read_json(path), path)


def record_of(values: Any, path: Path) -> RunRecord:
    """The record that ``values``, read from ``path``, are; a UserError names file and field."""
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a record")
    known = {f.name: f for f in fields(RunRecord)}
    required = ("key", "model", "data", "split", "scenario", "method", "seed", "status", "schema")
    for name in required:
        if name not in values:
            raise UserError(f"{path}: field {name} is missing")
    if values["schema"] != SCHEMA:
        raise UserError(f"{path}: schema {values['schema']}, this version reads {SCHEMA}")
    if values["status"] not in STATUSES:
        raise UserError(f"{path}: status {values['status']!r} is none of {', '.join(STATUSES)}")
    for name in ("before", "after", "change", "error", "settings"):
        if not isinstance(values.get(name), (dict, type(None))):
            raise UserError(f"{path}: field {name} must be an object or null")
    if values["status"] == "finished" and not values.get("after"):
        raise UserError(f"{path}: a finished run without scores (field after)")
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise UserError(f"{path}: unknown field {unknown[0]}")
    return RunRecord(**values)


def change(before: Any, after: Any) -> Any:
    """after - before for every number present in both; None where there is nothing to compare."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        common = {k: change(before[k], after[k]) for k in after if k in before and k != "rows"}
        return {k: v for k, v in common.items() if v is not None and v != {}}
    if _is_number(before) and _is_number(after):
        return after - before
    return None


def mean_metrics(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of every number over several metrics; None where one of them has none."""
    first = metrics[0]
    result: dict[str, Any] = {}
    for name, value in first.items():
        values = [m.get(name) for m in metrics]
        if isinstance(value, Mapping):
            present = [v for v in values if isinstance(v, Mapping)]
            result[name] = mean_metrics(present) if name != "absent" else dict(value)
        elif all(_is_number(v) for v in values):
            # An exact mean of equal values: counts of rows stay whole numbers.
            same = all(v == value for v in values)
            result[name] = value if same else statistics.fmean([v for v in values if v is not None])
        else:
            result[name] = value if all(v == value for v in values) else None
    return result


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Clock:
    """Seconds spent in each phase of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            spent = self.seconds.get(phase, 0.0) + time.monotonic() - start
            self.seconds[phase] = round(spent, 3)


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, "unierase-bench"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The checkout's commit, with "+dirty" when files differ from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        run = ["git", "-C", str(root)]
        commit = subprocess.run(
            [*run, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            [*run, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+dirty" if dirty else commit


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
