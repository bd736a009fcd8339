"""The document of results: from records, kept beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from records import after, record

from unierase.experiment.record import RunRecord
from unierase.tables.load import COMPACT, load_records, write_compact
from unierase.tables.overview import overview, with_overview
from unierase.tables.report import START, merged, report
from unierase.tables.table import PAPER_BASELINES, comparison, result_tables

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_results.py"


def scored(method: str, fe: float, mu: float, ability: float, **changes: Any) -> RunRecord:
    run = record(method, 0, fe, study="paper", changed_share=0.25, **changes)
    balance = 2 * fe * mu / (fe + mu)
    after(run).update(MU=mu, balance=balance, ability={"accuracy": ability})
    return run


def runs() -> list[RunRecord]:
    return [
        scored("unierase-tuned", 0.6, 0.8, 0.3),
        scored("unierase_retain-tuned", 0.99, 0.99, 0.9),
        scored("ga_gd-tuned", 0.8, 0.4, 0.1),
        scored("simnpo-tuned", 0.4, 0.9, 0.5),
        scored("none", 0.1, 1.0, 0.6),
    ]


def test_the_edit_is_compared_with_baselines_alone() -> None:
    found = comparison(runs())
    assert found is not None
    # Neither the ends of the scale nor variants of the edit count.
    assert (found.method, found.forgets, found.retains) == (
        "unierase-tuned",
        "ga_gd-tuned",
        "simnpo-tuned",
    )
    assert found.ability == 0.3 / 0.1 and found.efficacy == 0.6 / 0.4 - 1
    # 2 x 0.6 x 0.8 / 1.4 = 0.686 against 0.533 and 0.554.
    assert found.best == "unierase-tuned"
    # Beside the paper's own baselines there is ga_gd alone.
    few = comparison(runs(), baselines=PAPER_BASELINES)
    assert few is not None and few.retains == "ga_gd-tuned" and few.efficacy == 0.6 / 0.8 - 1
    assert comparison([*runs()[:2], *runs()[3:]], baselines=PAPER_BASELINES) is None
    assert (found.baselines, few.baselines) == (2, 1)
    more = scored("ga_gd", 0.5, 0.9, 0.1, settings={"lr": 0.1})
    several = comparison([*runs(), more])
    assert several is not None and (several.baselines, several.settings) == (2, 3)
    # 2 x 0.5 x 0.9 / 1.4 = 0.643, below the edit's 0.686. MU 0.9 twice: the first by name, ga_gd.
    assert several.best == "unierase-tuned" and several.retains == "ga_gd (lr=0.1)"
    lines = report([*runs(), more], {})
    assert "| all: 2 (3 settings) | yes |" in lines
    assert comparison(runs()[1:]) is None and comparison(runs()[:2]) is None


def test_without_fe_and_mu_balances_are_compared() -> None:
    people = runs()
    for run in people:
        del after(run)["FE"], after(run)["MU"]
    found = comparison(people)
    assert found is not None and found.best == "unierase-tuned"
    assert found.forgets is found.retains is found.ability is found.efficacy is None
    line = "| paper-tofu-forget01-tiny-batch | unierase-tuned | all: 2 | yes | – | – | 25.00 % |"
    assert line in report(people, {})


def test_compact_records_make_the_same_tables(tmp_path: Path) -> None:
    long = [scored(m, 0.123456789, 0.5, 0.1) for m in ("a", "b")]
    for run in long:
        metrics = {"FE": 0.5, "intervals": {"FE": [0.4, 0.6]}}
        run.rounds.append({"step": "batch", "metrics": metrics})
        run.change = {"FE": 0.1}
    write_compact(long[::-1], tmp_path / COMPACT)
    found = load_records(tmp_path).finished
    assert [run.method for run in found] == ["a", "b"]
    # Six digits; nothing that a table shows is left out.
    assert after(found[0])["FE"] == 0.123457
    rounded = [scored(m, 0.123457, 0.5, 0.1) for m in ("a", "b")]
    for run in rounded:
        after(run)["balance"] = after(found[0])["balance"]
        run.rounds.append({"step": "batch", "metrics": {"FE": 0.5}})
    assert result_tables(found) == result_tables(rounded)
    assert found[0].change is None and found[0].rounds[0]["metrics"] == {"FE": 0.5}
    # Beside the run itself it counts once, and the run's own record is the one that counts.
    long[0].write(tmp_path / "run")
    both = load_records(tmp_path).finished
    assert len(both) == 2 and after(both[0])["FE"] == 0.123456789
    (tmp_path / COMPACT).write_text('{"key": 1}\nnonsense\n')
    damaged = load_records(tmp_path)
    assert [run.method for run in damaged.finished] == ["a"]
    assert "records.jsonl:1: field model is missing" in damaged.left_out[0]


def test_claims_stand_beside_the_paper() -> None:
    text = report(runs(), {"paper-tofu-forget01-tiny-batch": ["results/x.png"]})
    assert (
        "| paper-tofu-forget01-tiny-batch | unierase-tuned | the paper's: 1 | yes | "
        "3.00 (ga_gd-tuned) | -25.0 % (ga_gd-tuned) | 25.00 % |\n"
        "| paper-tofu-forget01-tiny-batch | unierase-tuned | all: 2 | yes | 3.00 (ga_gd-tuned) | "
        "+50.0 % (simnpo-tuned) | 25.00 % |\n" in text
    )
    assert (
        "| paper-tofu-forget01-tiny-batch | unierase_retain-tuned | all: 2 | yes | "
        "9.00 (ga_gd-tuned) | +147.5 % (simnpo-tuned) | 25.00 % |" in text
    )
    assert "![paper-tofu-forget01-tiny-batch](results/x.png)" in text
    assert text.count("<details>") == text.count("</details>") > 0
    document = merged("# Results\n\nWords.\n\n" + text, "new")
    assert document == "# Results\n\nWords.\n\nnew"
    assert START in text


def test_results_are_written_in_parts(tmp_path: Path) -> None:
    first, *others = runs()
    first.write(tmp_path / "runs/0")
    out = tmp_path / "docs/results.md"
    out.parent.mkdir()
    out.write_text("# Results\n\nWords of somebody.\n")
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--runs"]
    subprocess.run([*command, str(tmp_path / "runs")], check=True)
    alone = out.read_text()
    assert alone.startswith("# Results\n\nWords of somebody.\n") and "ga_gd" not in alone
    for number, run in enumerate(others):
        run.write(tmp_path / "more" / str(number))
    record("stranger", 0, 0.5).write(tmp_path / "more/x")  # of no study
    readme = tmp_path / "README.md"
    readme.write_text("Mine\n<!-- overview -->\n<!-- end of overview -->\n")
    subprocess.run([*command, str(tmp_path / "more"), "--readme", str(readme)], check=True)
    assert readme.read_text().startswith("Mine\n<!-- overview -->\n| method | batch: FE† ↑ |")
    text = out.read_text()
    assert all(run.method in text for run in runs()) and "stranger" not in text
    assert (out.parent / "results/paper-tofu-forget01-tiny-batch.png").exists()
    # The same again without any run at hand.
    subprocess.run([*command, str(tmp_path / "nothing")], check=True)
    assert out.read_text() == text
    missing = [*command, str(tmp_path / "nothing"), "--study", "no"]
    done = subprocess.run(missing, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ")


def overview_runs() -> list[RunRecord]:
    """Two methods and the target in batch, one of them in a sequence and on people, too; a second
    seed, and a run with settings of its own."""
    people = scored("npo-tuned", 0.5, 0.5, 0.1, data="return", split="people", key="people")
    sequence = scored("npo-tuned", 0.5, 0.1, 0.1, scenario="sequential", key="sequence")
    after(sequence)["sets"]["earlier"] = {"rows": 4, "rouge": 0.25}
    again = scored("npo-tuned", 0.4, 0.6, 0.1, key="again")
    again.seed = 1
    return [
        scored("none", 0.1, 0.9, 0.1),
        scored("ga", 0.6, 0.2, 0.1),
        scored("npo-tuned", 0.6, 0.6, 0.1),
        again,
        sequence,
        people,
        scored("ga", 0.1, 0.2, 0.1, settings={"lr": 1.0}, key="set"),
    ]


def test_the_overview_has_every_method_once() -> None:
    table = overview(overview_runs())
    assert table is not None
    assert [column.name for column in table.columns] == [
        "batch: FE†",  # three of five scores, in every row
        "batch: MU",
        "batch: Balance†",
        "in a row: Balance†",
        "in a row: Earlier ROUGE-L",
        "RETURN: Balance†",
    ]
    # The yardstick, then by Balance: npo 0.6 and 0.48, ga 0.3.
    assert list(table.rows) == ["none", "npo", "ga"]
    npo = [cell.mean for cell in table.rows["npo"]]
    assert npo[0] == 0.5 and npo[4] == 0.25 and npo[5] == 0.5
    assert table.rows["ga"][3].mean is None and table.rows["ga"][2].rank == 2
    assert not table.rows["ga"][0].partial
    assert overview([]) is None
    both = overview([scored("ga", 0.5, 0.5, 0.1), scored("ga-tuned", 0.6, 0.6, 0.1)])
    assert both is not None and [cells[0].mean for cells in both.rows.values()] == [0.6]


def test_the_overview_stands_between_its_marks() -> None:
    document = "Before\n<!-- overview -->\nold\n<!-- end of overview -->\nAfter\n"
    written = with_overview(document, overview_runs())
    assert written.startswith("Before\n<!-- overview -->\n| method | batch: FE† ↑ |")
    assert "| npo | <u>0.50 ± 0.14</u> |" in written and "old" not in written
    assert written.endswith("|\n<!-- end of overview -->\nAfter\n")
    assert with_overview(written, overview_runs()) == written
    assert with_overview(document, []) == document
    assert with_overview("no marks\n", overview_runs()) == "no marks\n"
