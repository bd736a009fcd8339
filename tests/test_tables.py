"""From records to tables."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unierase.errors import UserError
from unierase.experiment.record import RunRecord, change, mean_metrics, read_record
from unierase.experiment.report import result_table
from unierase.tables.figures import trade_off
from unierase.tables.load import load_records
from unierase.tables.render import comma_separated, latex, latex_escape, markdown
from unierase.tables.table import result_tables

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_tables.py"
FIGURES = SCRIPT.with_name("make_figures.py")


def record(method: str, seed: int, fe: float, rows: int = 40, **changes: Any) -> RunRecord:
    after = {
        "sets": {"forget": {"rows": rows, "rouge": 1 - fe, "probability": 0.5}},
        "FE": fe,
        "FE_scores": 3,
        "FE_scores_full": 5,
        "MU": 0.8,
        "MU_scores": 6,
        "MU_scores_full": 6,
        "balance": None,
        "absent": {"balance": "for a test"},
    }
    base = RunRecord(
        key=f"{method}{seed}",
        model="tiny",
        data="tofu",
        split="forget01",
        scenario="batch",
        method=method,
        seed=seed,
        status="finished",
        before=after,
        after=after,
        seconds={"unlearning": 2.0},
        versions={"torch": "2", "transformers": "5"},
    )
    return replace(base, **changes)


def test_cells_are_means_over_seeds() -> None:
    (table,) = result_tables(
        [record("a_b", 0, 0.5), record("a_b", 1, 0.7), record("c", 0, 0.9), record("none", 0, 1.0)]
    )
    text = markdown(table)
    # Mean 0.6; standard deviation of 0.5 and 0.7 is 0.1414. Not an unlearning method: unmarked.
    assert "| a_b | <u>0.600 ± 0.141†</u> |" in text
    assert "| c | **0.900†** |" in text
    assert "| none | 1.000† |" in text
    assert "FE from 3 of 5 scores" in text and "Seeds: 0, 1" in text and "forget 40" in text
    assert "Balance" not in text  # nothing to show in it
    assert r"a\_b & \underline{0.600 $\pm$ 0.141$\dagger$}" in latex(table)
    lines = comma_separated(table).splitlines()
    assert lines[0].startswith("method,FE,FE std,MU,MU std")
    assert lines[2].startswith("c,0.9,,0.8,,")


def test_other_rows_make_another_table() -> None:
    tables = result_tables([record("a", 0, 0.5), record("b", 0, 0.5, rows=20)])
    names = ["tofu-forget01-tiny-batch", "tofu-forget01-tiny-batch-2"]
    assert [table.name for table in tables] == names


def test_two_settings_of_a_method_are_two_rows() -> None:
    twice = [record("a", 0, 0.5), record("a", 0, 0.6, key="other")]
    (table,) = result_tables(twice)
    assert list(table.rows) == ["a (a0)", "a (other)"]


def test_latex_escape() -> None:
    assert latex_escape("50 %_{x}") == r"50 \%\_\{x\}"


def test_records_are_checked(tmp_path: Path) -> None:
    record("a", 0, 0.5).write(tmp_path / "one")
    record("b", 0, 0.5, status="failed", error={"message": "boom"}).write(tmp_path / "two")
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "result.json").write_text('{"status": "fini')
    records = load_records(tmp_path)
    assert [r.method for r in records.finished] == ["a"]
    assert any("boom" in line for line in records.left_out)
    assert any("three" in line for line in records.left_out)
    assert read_record(tmp_path / "one" / "result.json") == record("a", 0, 0.5)
    record("a", 0, 0.5, status="done").write(tmp_path / "one")
    with pytest.raises(UserError, match="status 'done'"):
        read_record(tmp_path / "one" / "result.json")


def test_command(tmp_path: Path) -> None:
    record("a", 0, 0.5).write(tmp_path / "runs" / "one")
    command = [sys.executable, str(SCRIPT), "--runs"]
    out = str(tmp_path / "tables")
    subprocess.run([*command, str(tmp_path / "runs"), "--out", out], check=True)
    assert {p.suffix for p in (tmp_path / "tables").iterdir()} == {".md", ".tex", ".csv"}
    run = subprocess.run([*command, str(tmp_path / "none")], capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.startswith("error: runs=")


def test_change_and_mean() -> None:
    before = {"sets": {"forget": {"rows": 2, "rouge": 1.0}}, "FE": 0.25, "x": None}
    after = {"sets": {"forget": {"rows": 2, "rouge": 0.5}}, "FE": 0.75, "x": 1.0}
    assert change(before, after) == {"sets": {"forget": {"rouge": -0.5}}, "FE": 0.5}
    mean = mean_metrics([before, after])
    assert mean["sets"]["forget"] == {"rows": 2, "rouge": 0.75}
    assert mean["FE"] == 0.5 and mean["x"] is None


def test_result_table_marks_partial_scores() -> None:
    table = result_table(record("a", 0, 0.5))
    cells = [str(cell) for cell in table.columns[0]._cells]
    assert any("3 of 5 scores" in cell for cell in cells)


def test_trade_off_curves() -> None:
    runs = [record("b", 0, 0.5), record("a", 0, 0.9), record("b", 1, 0.4)]
    assert runs[2].after is not None
    runs[2].after["MU"] = 0.6
    incomplete = record("c", 0, 0.1)
    assert incomplete.after is not None
    incomplete.after["MU"] = None
    a, b = trade_off([*runs, incomplete])
    assert (a.method, a.retained, a.forgotten) == ("a", (0.8,), (0.9,))
    assert (b.method, b.retained, b.forgotten) == ("b", (0.6, 0.8), (0.4, 0.5))


def test_figures_are_drawn_by_group(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for i, one in enumerate([record("a", 0, 0.5), record("b", 0, 0.6, study="ablation")]):
        (runs / str(i)).mkdir(parents=True)
        one.write(runs / str(i))
    command = [sys.executable, str(FIGURES), "--runs", str(runs), "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{study}tofu-forget01-tiny-batch.{ending}"
        for study in ("", "ablation-")
        for ending in ("svg", "pdf")
    }
    missing = [*command[:2], "--runs", str(tmp_path / "no")]
    done = subprocess.run(missing, capture_output=True)
    assert done.returncode == 2 and b"no such folder" in done.stderr


def test_a_study_has_a_table_of_its_own() -> None:
    tables = result_tables([record("a", 0, 0.5), record("b", 0, 0.6, study="ablation")])
    assert [(table.name, list(table.rows)) for table in tables] == [
        ("ablation-tofu-forget01-tiny-batch", ["b"]),
        ("tofu-forget01-tiny-batch", ["a"]),
    ]
    assert tables[0].caption.startswith("ablation: tofu/forget01, batch, tiny")
