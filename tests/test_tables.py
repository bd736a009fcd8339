"""From records to tables."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from records import after, record

from unierase.errors import UserError
from unierase.experiment.record import RunRecord, change, mean_metrics, read_record
from unierase.experiment.report import result_table
from unierase.tables.columns import Column
from unierase.tables.figures import (
    attacks_figure,
    cost_figure,
    pareto_front,
    rounds_figure,
    styles,
    trade_off,
)
from unierase.tables.load import load_records
from unierase.tables.page import page
from unierase.tables.render import comma_separated, latex, latex_escape, markdown
from unierase.tables.table import best_settings, headlines, result_tables

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_tables.py"
FIGURES = SCRIPT.with_name("make_figures.py")


def test_cells_are_means_over_seeds() -> None:
    table, _, cost = result_tables(
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
    assert cost.name == "tofu-forget01-tiny-batch-cost"
    assert [column.name for column in cost.columns] == ["Unlearning s"]
    assert "seed 0, 1 only: a_b" not in table.notes and "seed 0 only: c, none" in table.notes


def test_other_rows_make_another_table() -> None:
    tables = result_tables([record("a", 0, 0.5), record("b", 0, 0.5, rows=20)])
    name = "tofu-forget01-tiny-batch"
    kinds = ("", "-memorisation", "-cost")
    both = [f"{n}{kind}" for n in (name, f"{name}-2") for kind in kinds]
    assert [t.name for t in tables] == both
    assert f"apart from {name}: other rows were scored" in tables[3].notes
    longer = record("a", 0, 0.5, notes=["20 of 200 authors"])
    apart = result_tables([record("a", 0, 0.5), longer])[3]
    assert apart.notes[-1] == f"apart from {name}: nothing left out, not 20 of 200 authors"


def test_seeds_hold_out_other_rows_and_share_a_table() -> None:
    runs = [record("a", seed, 0.5) for seed in (0, 1)]
    for run, rows in zip(runs, (4, 8), strict=True):
        after(run)["sets"]["held_out"] = {"rows": rows, "rouge": 0.9}
    table = result_tables(runs)[0]
    assert [str(column.name) for column in table.columns][-1] == "Held-out ROUGE-L"
    # Two equal values deviate by nothing, and are not said to by 0.0e+00 or the like.
    assert "| a | 0.500 ± 0.000† |" in markdown(table)


def test_other_targets_are_told() -> None:
    taught = record("a", 0, 0.5)
    anew = record("b", 0, 0.4, before=record("b", 0, 0.47).before)
    alike = record("c", 0, 0.4, before=record("c", 0, 0.49).before)
    seed = record("d", 1, 0.4, before=record("d", 1, 0.1).before)
    said = "before unlearning, the model of b scored otherwise than that of a, by up to 0.030"
    assert said in result_tables([taught, anew, alike, seed])[0].notes
    notes = result_tables([replace(taught, seed=3), replace(alike, seed=3)])[0].notes
    assert not [note for note in notes if note.startswith("before unlearning")]


def test_two_settings_of_a_method_are_two_rows() -> None:
    twice = [record("a", 0, 0.5), record("a", 0, 0.6, key="other")]
    table = result_tables(twice)[0]
    assert list(table.rows) == ["a (a0)", "a (other)"]
    # What was set of a method is told, and never averaged with other settings as another seed.
    low, high = {"lr": 1e-05, "epochs": 3}, {"lr": 1e-04, "epochs": 3}
    runs = [record("a", 0, 0.5, settings=low), record("a", 1, 0.7, settings=low)]
    runs.append(record("a", 2, 0.1, settings=high))
    runs.append(record("a", 3, 0.2, settings={}))
    table = result_tables(runs)[0]
    first = {label: cells[0].mean for label, cells in table.rows.items()}
    expected = {"a": 0.2, "a (epochs=3, lr=0.0001)": 0.1, "a (epochs=3, lr=1e-05)": 0.6}
    assert first == pytest.approx(expected)


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
    assert {p.suffix for p in (tmp_path / "tables").iterdir()} == {
        ".md",
        ".tex",
        ".csv",
        ".html",
    }
    page = (tmp_path / "tables" / "index.html").read_text()
    assert "tofu-forget01-tiny-batch-cost" in page and "<svg" in page and "http-equiv" not in page

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
    low, high = {"lr": 0.1}, {"lr": 0.2}
    runs = [record("b", 0, 0.5, settings=low), record("a", 0, 0.9)]
    runs += [record("b", 0, 0.3, settings=high), record("b", 1, 0.5, settings=high)]
    for run, mu in zip(runs[2:], (0.5, 0.7), strict=True):
        after(run)["MU"] = mu
    incomplete = record("c", 0, 0.1)
    assert incomplete.after is not None
    incomplete.after["MU"] = None
    a, b = trade_off([*runs, incomplete])
    assert (a.method, a.retained, a.forgotten) == ("a", (0.8,), (0.9,))
    # A point for each of its settings; of two seeds their mean.
    assert b.method == "b" and b.retained == pytest.approx((0.6, 0.8))
    assert b.forgotten == pytest.approx((0.4, 0.5))


def test_a_figure_may_show_the_best_settings_alone() -> None:
    def run(method: str, seed: int, balance: float, **settings: float) -> RunRecord:
        done = record(method, seed, 0.5, settings=settings)
        after(done)["balance"] = balance
        return done

    tuned = [run("b-tuned", 0, 0.5), run("b-tuned", 1, 0.1)]
    other = [run("b", 0, 0.4, lr=0.1), run("b", 0, 0.2, lr=0.2)]
    alone = run("a", 0, 0.0)
    # 0.3, the mean of the tuned one's seeds, is below 0.4.
    assert best_settings([*tuned, *other, alone]) == [other[0], alone]
    assert best_settings([*tuned, other[1], alone]) == [*tuned, alone]


def test_figures_are_drawn_by_group(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for i, one in enumerate([record("a", 0, 0.5), record("b", 0, 0.6, study="ablation")]):
        (runs / str(i)).mkdir(parents=True)
        one.write(runs / str(i))
    command = [sys.executable, str(FIGURES), "--runs", str(runs), "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{study}tofu-forget01-tiny-batch{figure}.{ending}"
        for study in ("", "ablation-")
        for figure in ("", "-cost")
        for ending in ("png", "pdf")
        if figure == ""  # without Balance there is no cost to set it against
    }
    missing = [*command[:2], "--runs", str(tmp_path / "no")]
    done = subprocess.run(missing, capture_output=True)
    assert done.returncode == 2 and b"no such folder" in done.stderr


def test_a_study_has_a_table_of_its_own() -> None:
    tables = result_tables([record("a", 0, 0.5), record("b", 0, 0.6, study="ablation")])
    assert [(table.name, list(table.rows)) for table in tables[::3]] == [
        ("ablation-tofu-forget01-tiny-batch", ["b"]),
        ("tofu-forget01-tiny-batch", ["a"]),
    ]
    assert tables[0].caption.startswith("ablation: tofu/forget01, batch, tiny")


def test_the_papers_sentences_are_computed() -> None:
    runs = [record("unierase", 0, 0.75), record("ga", 0, 0.9), record("npo", 0, 0.5)]
    after(runs[1])["MU"], after(runs[2])["MU"] = 0.2, 0.9
    assert headlines(runs) == (
        "unierase's FE is 50.0 % above that of npo, the other method with the best MU",
    )
    for run, ability in zip(runs, (0.6, 0.15, 0.5), strict=True):
        after(run)["ability"] = {"accuracy": ability}
    assert headlines(runs)[0] == (
        "unierase's ability is 4.00 times that of ga, the other method with the best FE"
    )
    assert headlines([runs[0], record("none", 0, 0.1)]) == ()
    assert headlines(runs[1:]) == ()


def sequence(method: str, seed: int, balances: list[float]) -> RunRecord:
    rounds = [{"metrics": {"FE": b, "MU": 0.5, "balance": b}} for b in balances]
    return record(method, seed, balances[-1], scenario="sequential", rounds=rounds)


def test_a_sequence_has_a_table_by_round() -> None:
    runs = [
        sequence("a", 0, [0.5, 0.7]),
        sequence("a", 1, [0.5, 0.9]),
        sequence("b", 0, [0.6, 0.1]),
    ]
    rounds = result_tables(runs)[1]
    assert rounds.name.endswith("-sequential-rounds")
    assert [column.name for column in rounds.columns] == [
        f"{score} {n}" for score in ("FE", "MU", "Balance") for n in (1, 2)
    ]
    assert [cell.mean for cell in rounds.rows["a"][4:]] == [0.5, pytest.approx(0.8)]
    assert rounds_figure(runs) is not None and rounds_figure([record("a", 0, 0.5)]) is None


def test_pareto_front() -> None:
    points = [(0.1, 0.9), (0.5, 0.5), (0.4, 0.5), (0.5, 0.4), (0.9, 0.1), (0.2, 0.2)]
    assert pareto_front(points) == [(0.1, 0.9), (0.5, 0.5), (0.9, 0.1)]


def test_page_is_whole_and_says_what_was_left_out() -> None:
    tables = result_tables([record("<a>", 0, 0.5), record("b", 0, 0.6)])
    text = page("Results", tables, {tables[0].name: "<svg></svg>"}, ["x: failed (boom & more)"])
    assert "&lt;a&gt;" in text and "<a>" not in text and "boom &amp; more" in text
    assert text.count("<table>") == len(tables) and "<strong>0.600†</strong>" in text
    assert "src=" not in text and 'href="http' not in text


def test_a_single_run_may_show_its_intervals() -> None:
    runs = [record("a", 0, 0.5), record("b", 0, 0.5), record("b", 1, 0.7)]
    after(runs[0])["intervals"] = {"FE": [0.4, 0.625], "sets": {"forget": {"rouge": [0.3, 0.7]}}}
    text = markdown(result_tables(runs, intervals=True)[0])
    assert "| a | <u>0.500 [0.400, 0.625]†</u> | **0.800** | <u>0.500 [0.300, 0.700]</u> |" in text
    assert "| b | **0.600 ± 0.141†** |" in text and "95 % bootstrap intervals" in text
    assert "[0.4" not in markdown(result_tables(runs)[0])


def test_no_two_methods_of_a_figure_look_the_same() -> None:
    looks = styles([*(f"method{i}" for i in range(80)), "none", "retrain"])
    assert len({(style.color, style.marker) for style in looks.values()}) == len(looks) == 82
    assert list(looks)[:2] == ["none", "retrain"]


def test_yardsticks_have_no_cost() -> None:
    runs = [record(method, 0, 0.5) for method in ("none", "retrain", "unierase")]
    for run in runs:
        run.seconds = {"unlearning": 3.0}
        run.after = {**(run.after or {}), "balance": 0.4}
    figure = cost_figure(runs)
    assert figure is not None and [line.get_label() for line in figure.axes[0].lines] == [
        "unierase"
    ]
    assert cost_figure(runs[:2]) is None


def test_attacks_have_a_table_and_a_figure() -> None:
    runs = [record("a", 0, 0.5), record("b", 0, 0.6)]
    for run, rouge in zip(runs, (0.9, 0.3), strict=True):
        after(run)["attacks"] = {"bits4": {"FE": 0.2, "MU": 0.7, "forget_rouge": rouge}}
    table = result_tables(runs)[1]
    assert table.name == "tofu-forget01-tiny-batch-robust-attacks"
    cells = {c.name: cell for c, cell in zip(table.columns, table.rows["b"], strict=True)}
    assert cells["bits4: forget ROUGE-L"].mean == 0.3 and cells["bits4: forget ROUGE-L"].rank == 1
    assert cells["no attack: FE"].mean == 0.6 and cells["bits4: MU"].mean == 0.7
    assert attacks_figure(runs) is not None and attacks_figure([record("a", 0, 0.5)]) is None
    # Runs without the attack are not put beside it.
    tables = result_tables([*runs, record("c", 0, 0.5)])
    assert len(tables) == 7
    assert all("a" not in t.rows for t in tables if "c" in t.rows)


def test_what_the_weights_still_hold_has_a_table() -> None:
    runs = [record("a", 0, 0.5), record("b", 0, 0.6)]
    for run, held in zip(runs, (0.9, 0.3), strict=True):
        after(run)["sets"]["forget"]["extraction_strength"] = held
        after(run)["membership"] = {"gradient_norm": {"auc": held, "privleak": None}}
    (table,) = [t for t in result_tables(runs) if t.name.endswith("-memorisation")]
    cells = {c.name: cell for c, cell in zip(table.columns, table.rows["b"], strict=True)}
    assert cells["Extraction strength"].mean == 0.3 and cells["Extraction strength"].rank == 1
    # No end of an AUC is the best one: the retrained model's is.
    assert cells["Gradient AUC"].mean == 0.3 and cells["Gradient AUC"].rank is None
    assert "Gradient PrivLeak" not in cells


def test_what_is_nearly_nothing_is_not_shown_as_nothing() -> None:
    column = Column("Forget quality", ("after", "forget_quality"), 1)
    assert column.shown(1.234e-12) == "1.2e-12"
    assert column.shown(0.0) == "0.000" and column.shown(0.0004) == "4.0e-04"
    runs = [record("a", 0, 0.5), record("b", 0, 0.5)]
    after(runs[0])["forget_quality"], after(runs[1])["forget_quality"] = 3e-18, 1e-12
    cells = result_tables(runs)[0].rows
    assert [cells[name][-1].rank for name in ("a", "b")] == [2, 1]
