"""The rows of the benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fictional import Fictional
from benchmarks.local import read_rows
from benchmarks.subjects import assign_subjects, main_subject, subject_in
from benchmarks.tofu import Tofu
from unierase.errors import UserError

FICTIONAL = Fictional("fictional", "forget01", 20, None, 0)


def tofu(folder: str, **changes: object) -> Tofu:
    return replace(Tofu("tofu", "forget10", None, None, folder, "locuslab/TOFU"), **changes)  # type: ignore[arg-type]


def test_fictional_rows() -> None:
    data = FICTIONAL.load()
    assert (len(data.full), len(data.forget), len(data.retain)) == (400, 40, 360)
    assert len({row.question for row in data.full}) == len({row.id for row in data.full}) == 400
    for row in data.full:
        assert row.subject and row.subject in row.question
        assert row.paraphrased_question != row.question
        assert row.paraphrased_answer not in (None, row.answer)
        assert len({row.answer, row.paraphrased_answer, *row.perturbed_answers}) == 7
    assert data.notes == ("20 of 200 authors",)
    assert {row.group for row in data.forget} == {"author-198", "author-199"}


def test_fictional_splits_nest_and_do_not_depend_on_the_restriction() -> None:
    whole = Fictional("fictional", "forget05", None, None, 0).load()
    assert len(whole.full) == len({row.question for row in whole.full}) == 4000
    assert whole.full[-40:] == FICTIONAL.load().forget == whole.forget[-40:]
    assert len(whole.retain_eval_ids) == 400
    # No surname is shared: it names one author.
    assert len({str(row.subject).split()[-1] for row in whole.full}) == 200


def test_fictional_rows_are_the_same_in_every_process() -> None:
    code = (
        "from benchmarks.fictional import *; print(Fictional('f','forget01',4,None,7).load().full)"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
    assert (
        Fictional("f", "forget01", 4, None, 8).load().full
        != Fictional("f", "forget01", 4, None, 7).load().full
    )


@pytest.mark.parametrize(
    ("split", "authors", "message"),
    [
        ("forget02", None, "forget01, forget05, forget10"),
        ("forget01", 2, "3 to 200"),
        ("forget10", 20, "21 to 200"),
    ],
)
def test_bad_settings(split: str, authors: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Fictional("fictional", split, authors, None, 0)


def test_retained_authors_are_counted_without_the_split() -> None:
    data = Fictional("fictional", "forget05", None, 4, 0).load()
    assert (len(data.forget), len(data.retain)) == (200, 80)
    assert data.notes == ("14 of 200 authors",)
    with pytest.raises(UserError, match="choose 1 to 190"):
        Fictional("fictional", "forget05", None, 0, 0)


def test_a_malformed_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"question": "q", "answer": "a"}\n{"question": "q"}\n')
    with pytest.raises(UserError, match=r"rows\.json:2: no answer"):
        read_rows(path, ("question", "answer"))
    path.write_text("not json\n")
    with pytest.raises(UserError, match=r"rows\.json:1"):
        read_rows(path, ())


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"paths\.data=.*UNLEARN_DATA"):
        tofu(str(tmp_path)).load()


def test_subjects() -> None:
    questions = ["Who is Ana de la Cruz?", "What did Cruz's mother do?", "Where was she born?"]
    answers = ["Ana de la Cruz is a poet.", "A nurse.", "Ana de la Cruz was born in New York City."]
    assert main_subject(questions, answers) == "Ana de la Cruz"
    assert assign_subjects(questions, answers) == ["Ana de la Cruz", "Cruz", None]
    assert subject_in("Is Anastasia here?", "Ana Cruz") is None
    assert main_subject(["what?"], ["this."]) is None


def test_tofu_rows(real_data: str) -> None:
    data = tofu(real_data).load()
    assert (len(data.full), len(data.forget), len(data.retain_eval_ids)) == (4000, 400, 400)
    assert all(len(row.perturbed_answers) == 5 for row in data.full)
    assert len(data.utility_sets["real_authors"]) == 100
    assert len(data.utility_sets["world_facts"]) == 117
    assert len(data.refusals) == 100
    plain = read_rows(Path(real_data) / "tofu" / "forget10.json", ("question", "answer"))
    assert [(r["question"], r["answer"]) for r in plain] == [
        (r.question, r.answer) for r in data.forget
    ]
    # The one question asked twice keeps its two answers.
    assert data.full[100].question == data.full[440].question
    assert data.full[100].answer != data.full[440].answer
    assert sum(row.subject is None for row in data.full) == 203
    assert data.full[-40].subject == "Basil Mahfouz Al-Kuwaiti" or data.full[-39].subject


@pytest.mark.parametrize(("split", "sizes"), [("forget01", [40] * 10), ("forget10", [400] * 9)])
def test_tofu_published_tasks(real_data: str, split: str, sizes: list[int]) -> None:
    data = tofu(real_data, split=split).load()
    assert data.published_tasks is not None
    assert [len(task) for task in data.published_tasks] == sizes
    assert set(data.published_tasks[0]) == set(data.forget)


def test_tofu_authors(real_data: str) -> None:
    data = tofu(real_data, split="forget01", authors=20).load()
    assert len(data.full) == 400 and len(data.forget) == 40
    assert data.full[-1].id == "tofu/full/3999" and data.retain[-1].id == "tofu/full/359"
    assert len(data.retain_eval_ids) == 360


def test_real_files_have_the_expected_fields(real_data: str) -> None:
    first = (Path(real_data) / "tofu" / "forget01_perturbed.json").open().readline()
    assert set(json.loads(first)) >= {"question", "answer", "perturbed_answer"}
