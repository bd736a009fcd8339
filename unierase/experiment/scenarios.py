"""Scenarios: how the forget rows arrive, and what is scored after each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from unierase.request import UnlearningRequest
from unierase.rows import BenchmarkData, Row


@dataclass(frozen=True)
class Step:
    """One unlearning request and the sets scored after it.

    fresh: start from the target; otherwise from the model and state of the step before.
    sets: rows to score, by name. "forget" is always there (the rows of this request); a
        sequential step adds "earlier" (the rows of all earlier tasks), a precise one
        "same_person". "retain" never holds a row that has been forgotten so far.
    """

    name: str
    request: UnlearningRequest
    fresh: bool
    sets: Mapping[str, tuple[Row, ...]]


class Scenario(Protocol):
    """Cuts a benchmark into steps."""

    name: str

    def steps(self, data: BenchmarkData, seed: int) -> tuple[Step, ...]:
        """The steps of the experiment, in order."""
