"""What each scenario asks for and scores, on ten authors of four rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unierase.errors import UserError
from unierase.experiment.scenarios import Batch, Precise, Sequential, hold_out, with_swapped
from unierase.rows import BenchmarkData, Row


def data(published: bool = False) -> BenchmarkData:
    full = tuple(Row(f"r{i}", f"q{i}", f"a{i}", group=f"p{i // 4}") for i in range(40))
    return BenchmarkData(
        name="ten",
        split="forget10",
        full=full,
        forget_size=4,
        retain_eval_ids=frozenset(f"r{i}" for i in range(12)),
        utility_sets={"world_facts": (Row("w0", "q", "a", "w0"),)},
        general=(),
        refusals=("No.",),
        published_tasks=(full[-4:], full[:4]) if published else None,
    )


def ids(rows: tuple[Row, ...]) -> list[str]:
    return [row.id for row in rows]


def test_batch() -> None:
    (step,) = Batch().steps(data(), seed=3)
    assert ids(step.request.forget) == ["r36", "r37", "r38", "r39"]
    assert len(step.request.retain) == 36 and step.request.seed == 3
    assert list(step.sets) == ["forget", "retain", "world_facts"]
    assert ids(step.sets["retain"]) == [f"r{i}" for i in range(12)]


def test_sequential() -> None:
    steps = Sequential(rounds=9).steps(data(), seed=0)
    assert [ids(step.request.forget)[0] for step in steps[:3]] == ["r36", "r32", "r28"]
    assert [step.fresh for step in steps] == [True] + [False] * 8
    assert [step.request.round for step in steps] == list(range(1, 10))
    assert "earlier" not in steps[0].sets
    assert ids(steps[2].sets["earlier"]) == [f"r{i}" for i in (36, 37, 38, 39, 32, 33, 34, 35)]
    # Every request knows the earlier ones, task by task.
    assert steps[0].request.earlier == ()
    assert steps[2].request.earlier == tuple(step.request.forget for step in steps[:2])
    # Nothing forgotten so far is asked to be retained, or scored as retained.
    for number, step in enumerate(steps, start=1):
        assert len(step.request.retain) == 40 - 4 * number
        assert not set(ids(step.sets["retain"])) & {f"r{i}" for i in range(40 - 4 * number, 40)}
    assert ids(steps[-1].sets["retain"]) == ["r0", "r1", "r2", "r3"]


def test_sequential_defaults_leave_rows_to_retain() -> None:
    assert len(Sequential().steps(data(), 0)) == 9


def test_tasks_of_another_size() -> None:
    steps = Sequential(rounds=3, task_rows=2).steps(data(), 0)
    assert [ids(step.request.forget) for step in steps] == [
        ["r38", "r39"], ["r36", "r37"], ["r34", "r35"]
    ]  # fmt: skip
    for size in (0, 40):
        with pytest.raises(UserError, match=rf"scenario.task_rows={size}: data=ten has 1 to 39"):
            Sequential(task_rows=size).steps(data(), 0)
    with pytest.raises(UserError, match=r"scenario.task_rows=2: .*assignment=official"):
        Sequential(task_rows=2, assignment="published").steps(data(published=True), 0)


def test_tasks_after_which_is_scored() -> None:
    def scored(**settings: object) -> list[bool]:
        steps = Sequential(rounds=4, task_rows=2, **settings).steps(data(), 0)  # type: ignore[arg-type]
        return [step.scored for step in steps]

    assert scored() == [True] * 4
    assert scored(scored_tasks=[2]) == [False, True, False, True]
    assert scored(scored_tasks=[]) == [False, False, False, True]  # a run has a result
    for tasks in ([5], [0, 1]):
        with pytest.raises(UserError, match=r"scenario.scored_tasks=\[.*: there are 4 tasks"):
            scored(scored_tasks=tasks)


def test_published_assignment() -> None:
    steps = Sequential(assignment="published").steps(data(published=True), 0)
    assert [ids(step.request.forget)[0] for step in steps] == ["r36", "r0"]
    with pytest.raises(UserError, match="published"):
        Sequential(assignment="published").steps(data(), 0)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (Sequential(rounds=10), "1 to 9 tasks"),
        (Sequential(rounds=0), "1 to 9 tasks"),
        (Sequential(assignment="other"), "official, published"),
        (Precise(questions=5), "1 to 4"),
    ],
)
def test_bad_settings(scenario: Sequential | Precise, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scenario.steps(data(), 0)


def test_precise() -> None:
    steps = Precise(questions=2).steps(data(), seed=0)
    assert all(step.fresh and len(step.request.forget) == 1 for step in steps)
    assert len({step.request.forget[0].id for step in steps}) == 2
    for step in steps:
        (row,) = step.request.forget
        assert len(step.sets["same_person"]) == 3
        assert row.id not in ids(step.sets["same_person"]) + ids(step.request.retain)
        assert len(step.request.retain) == 39
    assert Precise(questions=2).steps(data(), 0) == steps


def test_held_out_rows_are_scored_and_not_shown() -> None:
    for scenario in (Batch(), Sequential(rounds=9), Precise(questions=2)):
        whole = scenario.steps(data(), 0)
        steps = hold_out(whole, 2, seed=5)
        held = set(ids(steps[0].sets["held_out"]))
        assert len(held) == 2
        for before, step in zip(whole, steps, strict=True):
            assert set(ids(step.sets["held_out"])) == held
            assert not held & set(ids(step.request.retain))
            assert not held & set(ids(step.sets["retain"]))
            assert held | set(ids(step.sets["retain"])) == set(ids(before.sets["retain"]))
            assert held | set(ids(step.request.retain)) == set(ids(before.request.retain))
            assert step.request.forget == before.request.forget
    assert hold_out(whole, 0, seed=5) == whole
    with pytest.raises(UserError, match=r"held_out=12: 12 rows .* choose 0 to 11"):
        hold_out(Batch().steps(data(), 0), 12, 0)


def test_swapped_questions_ask_about_somebody_retained() -> None:
    named = tuple(
        Row(f"r{i}", f"Where was P{i // 4} born?", f"P{i // 4}: Rome.", f"p{i // 4}", f"P{i // 4}")
        for i in range(40)
    )
    (step,) = with_swapped(Batch().steps(replace(data(), full=named), seed=0))
    swapped = step.sets["swapped"]
    assert [row.id for row in swapped] == [f"r{i}/swapped" for i in range(36, 40)]
    for row in swapped:
        assert row.subject in {f"P{i}" for i in range(9)}
        assert row.question == f"Where was {row.subject} born?"
    assert step.request == Batch().steps(replace(data(), full=named), seed=0)[0].request
    # Without names there is nothing to swap.
    (plain,) = with_swapped(Batch().steps(data(), seed=0))
    assert plain.sets["swapped"] == ()
