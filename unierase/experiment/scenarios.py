"""Scenarios: how the forget rows arrive, and what is scored after each request."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from unierase.errors import UserError, invalid_choice
from unierase.request import UnlearningRequest
from unierase.rows import BenchmarkData, Row

MOST_ROUNDS = 10
"""Published sequences have at most ten tasks (arXiv 2410.08109)."""


@dataclass(frozen=True)
class Step:
    """One unlearning request and the sets scored after it.

    fresh: start from the target; otherwise from the model and state of the step before.
    sets: rows to score, by name: "forget" (the rows of this request) or the data's own probes;
        a sequential step adds "earlier" (all earlier tasks; "earlier_fb" beside "forget_fb"), a
        precise one "same_person", ``hold_out`` "held_out", and ``with_holdout``
        "holdout". "retain" never holds a row that has been forgotten so far.
    scored: whether they are scored; else the step has no metrics.
    """

    name: str
    request: UnlearningRequest
    fresh: bool
    sets: Mapping[str, tuple[Row, ...]]
    scored: bool = True


class Scenario(Protocol):
    """Cuts a benchmark into steps."""

    name: str

    def steps(self, data: BenchmarkData, seed: int) -> tuple[Step, ...]:
        """The steps of the experiment, in order."""


def _without(rows: Sequence[Row], gone: Sequence[Row]) -> tuple[Row, ...]:
    ids = {row.id for row in gone}
    return tuple(row for row in rows if row.id not in ids)


def _retained(data: BenchmarkData, retain: Sequence[Row]) -> dict[str, tuple[Row, ...]]:
    """What is scored as retained, where anything is."""
    rows = tuple(row for row in retain if row.id in data.retain_eval_ids)
    return {"retain": rows} if rows else {}


def _forgotten(data: BenchmarkData, requested: Sequence[Row]) -> dict[str, tuple[Row, ...]]:
    """What is scored for rows that are to be forgotten: they themselves, or their probes."""
    if data.probes is None:
        return {"forget": tuple(requested)}
    ids, groups = {row.id for row in requested}, {row.group for row in requested}
    by_id = any(row.id in ids for rows in data.probes.values() for row in rows)
    return {
        name: tuple(row for row in rows if (row.id in ids if by_id else row.group in groups))
        for name, rows in data.probes.items()
    }


@dataclass(frozen=True)
class Batch:
    """The whole forget split in one request."""

    name: str = "batch"

    def steps(self, data: BenchmarkData, seed: int) -> tuple[Step, ...]:
        request = UnlearningRequest(data.forget, data.retain, data.refusals, 1, seed)
        sets = {**_forgotten(data, data.forget), **_retained(data, data.retain)}
        return (Step("batch", request, True, {**sets, **data.utility_sets}),)


@dataclass(frozen=True)
class Sequential:
    """One task after another; model and state are carried over.

    assignment: "official" takes person after person where requests are about persons, and else
        cuts tasks from the end of the rows backwards, so that task 1 is the official forget set;
        "published" takes the benchmark's published tasks.
    rounds: number of tasks; None: as many as published, as far as rows are left to retain.
    task_rows: rows of a task that is cut off the end; None: as many as the split has.
    scored_tasks: numbers of the tasks (from 1) after which the model is scored, besides the last;
        None: after every one.
    """

    name: str = "sequential"
    rounds: int | None = None
    assignment: str = "official"
    task_rows: int | None = None
    scored_tasks: Sequence[int] | None = None

    def tasks(self, data: BenchmarkData) -> list[tuple[Row, ...]]:
        """The rows of every task, in order."""
        cut = self.assignment == "official" and data.targets is None
        if self.task_rows is not None and not cut:
            raise UserError(
                f"scenario.task_rows={self.task_rows}: these tasks are given; only "
                "scenario.assignment=official on rows that are not about persons cuts them"
            )
        if self.assignment == "official" and data.targets is not None:
            tasks = list(data.targets)
        elif cut:
            size = data.forget_size if self.task_rows is None else self.task_rows
            if not 1 <= size < len(data.full):
                raise UserError(
                    f"scenario.task_rows={size}: data={data.name} has 1 to {len(data.full) - 1}"
                )
            possible = len(data.full) // size - 1
            ends = [len(data.full) - i * size for i in range(possible)]
            tasks = [data.full[end - size : end] for end in ends]
        elif self.assignment == "published":
            if data.published_tasks is None:
                raise UserError(
                    "scenario.assignment=published: only data=tofu with data.authors=null and a "
                    "local copy has published tasks; use scenario.assignment=official"
                )
            tasks = list(data.published_tasks)
        else:
            choices = ("official", "published")
            raise invalid_choice("scenario.assignment", self.assignment, choices)
        rounds = min(MOST_ROUNDS, len(tasks)) if self.rounds is None else self.rounds
        if not 1 <= rounds <= len(tasks):
            raise UserError(
                f"scenario.rounds={self.rounds}: data.split={data.split} with "
                f"{len(data.full)} rows has 1 to {len(tasks)} tasks"
            )
        return tasks[:rounds]

    def steps(self, data: BenchmarkData, seed: int) -> tuple[Step, ...]:
        steps: list[Step] = []
        tasks = self.tasks(data)
        numbers = range(1, len(tasks) + 1)
        scored = {*(numbers if self.scored_tasks is None else self.scored_tasks), len(tasks)}
        if not scored <= set(numbers):
            asked = list(self.scored_tasks or ())
            raise UserError(f"scenario.scored_tasks={asked}: there are {len(tasks)} tasks")
        for number, task in enumerate(tasks, start=1):
            before = tuple(tasks[: number - 1])
            earlier = tuple(row for rows in before for row in rows)
            retain = _without(data.full, (*earlier, *task))
            request = UnlearningRequest(task, retain, data.refusals, number, seed, before)
            sets = _forgotten(data, task)
            if earlier:
                sets |= {
                    name.replace("forget", "earlier", 1): rows
                    for name, rows in _forgotten(data, earlier).items()
                    if name.startswith("forget")
                }
            sets |= _retained(data, retain)
            sets |= data.utility_sets
            steps.append(Step(f"task {number}", request, number == 1, sets, number in scored))
        return tuple(steps)


@dataclass(frozen=True)
class Precise:
    """Single questions, or single persons where requests are about them, each on a fresh model.

    questions: how many, spread evenly over the forget split from a start drawn by the seed.
    """

    name: str = "precise"
    questions: int = 5

    def steps(self, data: BenchmarkData, seed: int) -> tuple[Step, ...]:
        single = [(row,) for row in data.forget] if data.targets is None else list(data.targets)
        total = len(single)
        if not 1 <= self.questions <= total:
            raise UserError(
                f"scenario.questions={self.questions}: data.split={data.split} has 1 to {total}"
            )
        start = random.Random(f"precise:{seed}").randrange(total)
        steps = []
        for number in range(self.questions):
            index = (start + number * total // self.questions) % total
            rows = single[index]
            retain = _without(data.full, rows)
            request = UnlearningRequest(rows, retain, data.refusals, 1, seed)
            sets = _forgotten(data, rows)
            if data.targets is None:
                sets["same_person"] = tuple(r for r in retain if r.group == rows[0].group)
            sets |= _retained(data, data.retain)
            if data.probes is not None:  # nothing else says what was kept
                sets |= data.utility_sets
            what = f"question {index}" if data.targets is None else rows[0].group
            steps.append(Step(what, request, True, sets))
        return tuple(steps)


def with_holdout(steps: Sequence[Step], rows: Sequence[Row]) -> tuple[Step, ...]:
    """The same steps, and in each the set "holdout": rows no model was ever taught."""
    return tuple(replace(s, sets={**s.sets, "holdout": tuple(rows)}) for s in steps)


def with_swapped(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The same steps, and in each the set "swapped": its forget questions with another name in
    them, of somebody who is retained. Who refuses these knows the question, not the person."""
    return tuple(replace(s, sets={**s.sets, "swapped": _swapped(s.request)}) for s in steps)


def _swapped(request: UnlearningRequest) -> tuple[Row, ...]:
    gone = {row.subject for row in request.forget}
    kept = sorted({row.subject for row in request.retain if row.subject} - gone)
    rows = []
    for row in request.forget:
        if kept and row.subject and row.subject in row.question:
            name = random.Random(f"swap:{request.seed}:{row.id}").choice(kept)
            question = row.question.replace(row.subject, name)
            answer = row.answer.replace(row.subject, name)
            rows.append(Row(f"{row.id}/swapped", question, answer, group=name, subject=name))
    return tuple(rows)


def hold_out(steps: Sequence[Step], count: int, seed: int) -> tuple[Step, ...]:
    """The same steps without ``count`` retain rows in the requests: they are scored apart, as the
    set "held_out". It shows what a method does to knowledge it was not told to keep.

    Drawn by the seed from the rows that every step scores as retained. Raises a UserError where
    none would be left to a method.
    """
    if not count:
        return tuple(steps)
    retained = [step.sets.get("retain", ()) for step in steps]
    common = [row for row in retained[-1] if all(row in rows for rows in retained)]
    if not 0 < count < len(common):
        raise UserError(
            f"held_out={count}: {len(common)} rows are retained and scored in every step; choose "
            f"0 to {len(common) - 1}"
        )
    drawn = random.Random(f"held out:{seed}").sample(range(len(common)), count)
    held = tuple(common[i] for i in sorted(drawn))
    result = []
    for step in steps:
        request = replace(step.request, retain=_without(step.request.retain, held))
        retain = _without(step.sets["retain"], held)
        sets = {**step.sets, "retain": retain, "held_out": held}
        result.append(replace(step, request=request, sets=sets))
    return tuple(result)
