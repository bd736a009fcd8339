"""Logging a run's metrics while it goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from unierase.errors import invalid_choice

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One question of a set, its reference answer, and the model's before and after."""

    set: str
    question: str
    answer: str
    before: str
    after: str


class TrackedRun(Protocol):
    """One run being tracked.

    report_to: what transformers' Trainer reports training steps to.
    """

    report_to: tuple[str, ...]

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Record the metrics of a step of the scenario."""

    def log_examples(self, examples: Sequence[Example]) -> None:
        """Record what some questions were answered before and after unlearning."""

    def finish(self, status: str) -> None:
        """Close the run: "finished", "failed" or "interrupted"."""


class Tracker(Protocol):
    """Opens a tracked run."""

    def start(
        self, config: Mapping[str, Any], folder: Path, name: str, group: str, key: str
    ) -> TrackedRun:
        """``group`` holds the runs that differ in method and seed alone. ``key`` names the
        experiment: a run that is resumed goes on under it."""


class _NoRun:
    report_to: tuple[str, ...] = ()

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        pass

    def log_examples(self, examples: Sequence[Example]) -> None:
        pass

    def finish(self, status: str) -> None:
        pass


@dataclass(frozen=True)
class NoTracker:
    """The record in the run directory is all there is."""

    def start(
        self, config: Mapping[str, Any], folder: Path, name: str, group: str, key: str
    ) -> TrackedRun:
        return _NoRun()


def flat_numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Nested numbers as ("sets/forget/rouge", 0.1) pairs."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


@dataclass(frozen=True)
class WandbTracker:
    """Weights & Biases; a server that can't be reached never stops a run."""

    project: str
    mode: str = "online"
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in ("online", "offline"):
            raise invalid_choice("logger.mode", self.mode, ("online", "offline"))

    def start(
        self, config: Mapping[str, Any], folder: Path, name: str, group: str, key: str
    ) -> TrackedRun:
        import wandb

        def open_run(mode: Any) -> Any:
            return wandb.init(
                project=self.project,
                mode=mode,
                config=dict(config),
                dir=str(folder),
                name=name,
                group=group,
                id=key,
                resume="allow",
                tags=list(self.tags),
            )

        try:
            return _WandbRun(open_run(self.mode))
        except (wandb.errors.Error, OSError) as error:
            if self.mode == "offline":
                raise
            log.warning("wandb: %s; logging offline instead (wandb sync later)", error)
            return _WandbRun(open_run("offline"))


class _WandbRun:
    report_to: tuple[str, ...] = ("wandb",)

    def __init__(self, run: Any) -> None:
        self.run = run
        run.define_metric("round")  # the Trainer counts its own steps
        run.define_metric("*", step_metric="round")

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        self.run.log({"round": step, **dict(flat_numbers(metrics))})

    def log_examples(self, examples: Sequence[Example]) -> None:
        import wandb

        columns: list[str | int] = [field.name for field in fields(Example)]
        rows = [list(astuple(example)) for example in examples]
        self.run.log({"examples": wandb.Table(columns=columns, data=rows)})

    def finish(self, status: str) -> None:
        self.run.summary["status"] = status
        self.run.finish(exit_code=0 if status == "finished" else 1)
