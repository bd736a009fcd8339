"""Tuning: rows apart from the test's, the best trial, and the config that is made of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from configs import ROOT, config

from benchmarks.evaluation import QuestionAnswerEvaluation
from unierase.app import RunFailed, check_tuned
from unierase.errors import UserError
from unierase.experiment.record import RunRecord, read_record
from unierase.rows import Row

SCRIPT = ROOT / "scripts" / "tuned.py"


def test_the_halves_share_no_row_and_miss_none(rows: list[Row]) -> None:
    many = [replace(rows[0], id=f"tofu/full/{i}") for i in range(200)]
    halves = {
        part: {
            row.id for row in QuestionAnswerEvaluation(part=part).select({"forget": many})["forget"]
        }
        for part in ("all", "validation", "test")
    }
    assert halves["validation"] | halves["test"] == halves["all"] and len(halves["all"]) == 200
    assert not halves["validation"] & halves["test"]
    assert 70 < len(halves["validation"]) < 130
    # Which half a row is in does not depend on the others, and a limit counts within the half.
    few = QuestionAnswerEvaluation(part="test", limit=5).select({"forget": many})["forget"]
    assert {row.id for row in few} < halves["test"] and len(few) == 5
    with pytest.raises(UserError, match=r"evaluation.part=half: not available; choose"):
        QuestionAnswerEvaluation(part="half")


def trial(
    folder: Path, method: str, balance: float | None, lr: float | None, study: str = "tune"
) -> None:
    """The directory of a finished run, as far as tuning reads it."""
    mu = None if balance is None else balance * 0.9 / (1.8 - balance)
    after = {"sets": {}, "FE": 0.9, "MU": mu, "RE": 1 - lr if lr else 0.5, "absent": {}}
    record = RunRecord(
        key=folder.name,
        model="tiny",
        data="tofu",
        split="forget01",
        scenario="batch",
        method=method,
        seed=0,
        status="finished",
        before=after,
        after=after,
        change={},
        study=study,
        notes=["the validation half of each set"],
        git_commit="0123456789abcdef",
        settings={} if lr is None else {"lr": lr, "token.num_tokens": 2},
    )
    record.write(folder)


def collected(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_best_trial_becomes_a_config(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    trial(runs / "a", "npo_gd", 0.7, 1e-4)
    trial(runs / "b", "npo_gd", 0.8, 2e-4)
    trial(runs / "c", "npo_gd", None, 9e-4)
    trial(runs / "d", "npo_gd", 0.9, 9e-4, study="other")
    trial(runs / "e", "ga", 0.3, 3e-4)
    trial(runs / "f", "none", 0.2, None)
    out = tmp_path / "conf" / "tuned"
    done = collected("--runs", str(runs), "--out", str(out))
    where = out / "tiny-tofu-forget01-batch"
    assert done.returncode == 0 and done.stdout.split() == [
        str(where / "ga.yaml"),
        str(where / "none.yaml"),
        str(where / "npo_gd.yaml"),
    ]
    assert (
        (where / "none.yaml")
        .read_text()
        .endswith(  # no settings, and no name of a tuned one
            "# The only trial; Balance 0.2000, FE 0.9000, MU 0.1125; commit 0123456789.\n"
            "defaults:\n"
            "  - override /method: none\n"
        )
    )
    assert (where / "npo_gd.yaml").read_text() == (
        "# @package _global_\n"
        "# python run.py model=tiny data=tofu +tuned=tiny-tofu-forget01-batch/npo_gd\n"
        "# Tuned on tofu/forget01, batch, seed 0:\n"
        "# the validation half of each set\n"
        "# Best of 2 trials; Balance 0.8000, FE 0.9000, MU 0.7200; commit 0123456789.\n"
        "defaults:\n"
        "  - override /method: npo_gd\n"
        "method:\n"
        "  name: npo_gd-tuned\n"
        "  lr: 0.0002\n"
        "  token:\n"
        "    num_tokens: 2\n"
    )


def test_what_is_kept_may_be_retained_rows_alone(tmp_path: Path) -> None:
    trial(tmp_path / "a", "npo_gd", 0.7, 0.1)  # RE 0.9
    trial(tmp_path / "b", "npo_gd", 0.8, 0.4)  # RE 0.6
    done = collected("--runs", str(tmp_path), "--out", str(tmp_path / "out"), "--kept", "RE")
    text = Path(done.stdout.strip()).read_text()
    assert "harmonic mean of FE and RE 0.9000, FE 0.9000, RE 0.9000;" in text
    assert "lr: 0.1\n" in text


def test_nothing_tuned_is_an_error(tmp_path: Path) -> None:
    done = collected("--runs", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "no finished trial found" in done.stderr
    done = collected("--runs", str(tmp_path / "nowhere"))
    assert done.returncode == 2 and "no such folder" in done.stderr
    trial(tmp_path / "old", "npo_gd", 0.7, 0.1)
    path = tmp_path / "old" / "result.json"
    replace(read_record(path), settings=None).write(path.parent)
    done = collected("--runs", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "does not say what was set of its method" in done.stderr


def test_what_was_set_outside_the_method_is_written_where_it_stands(tmp_path: Path) -> None:
    trial(tmp_path / "a", "npo_gd", 0.7, 0.1)
    path = tmp_path / "a" / "result.json"
    record = read_record(path)
    replace(record, settings={"model.unlearning.epochs": 2, "beta": 0.5}).write(path.parent)
    done = collected("--runs", str(tmp_path), "--out", str(tmp_path / "out"))
    assert (
        Path(done.stdout.strip())
        .read_text()
        .endswith(
            "method:\n  name: npo_gd-tuned\n  beta: 0.5\nmodel:\n  unlearning:\n    epochs: 2\n"
        )
    )
    replace(record, settings={"training": "published"}).write(path.parent)
    done = collected("--runs", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "set training=published by choosing a config" in done.stderr


TUNED = sorted((ROOT / "conf" / "tuned").glob("*/*.yaml"))


def test_every_tuned_config_composes() -> None:
    for path in TUNED:
        cfg = config(f"+tuned={path.parent.name}/{path.stem}")
        tuned = "method:" in path.read_text().splitlines()  # else it has nothing to tune
        assert cfg.method.name == path.stem + ("-tuned" if tuned else "")


def test_tuned_settings_of_another_method_are_an_error() -> None:
    check_tuned({"method": "ga", "tuned": "somewhere/ga", "data": "tofu"})
    for choices in ({"tuned": "somewhere/ga"}, {"tuned/somewhere": "ga"}):
        with pytest.raises(RunFailed, match="settings are for method=ga, not method=npo"):
            check_tuned({"method": "npo", **choices})


@pytest.mark.parametrize("preset", ["published", "unierase_paper"])
def test_training_presets(preset: str) -> None:
    cfg = config("method=ga_gd", f"+training={preset}")
    batch = {"published": 32, "unierase_paper": 128}[preset]
    assert (cfg.method.lr, cfg.method.epochs, cfg.method.batch_size) == (1e-5, 5, batch)


@pytest.mark.slow
def test_tuning_runs_trials_and_goes_on(tmp_path: Path) -> None:
    """Two trials by Optuna; the same command once more repeats none of them."""
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "--multirun",
        "experiment=tune_training",
        "method=ga_gd",
        "data.authors=4",
        "evaluation.max_new_tokens=8",
        "evaluation.limit=4",
        "model.finetune.epochs=1",
        "model.source.hidden_size=64",
        "model.source.intermediate_size=128",
        "hydra.sweeper.n_trials=2",
        f"paths.runs={tmp_path}/runs",
        f"paths.cache={tmp_path}/cache",
    ]
    subprocess.run(command, check=True, capture_output=True)
    found = [read_record(path) for path in sorted((tmp_path / "runs").rglob("result.json"))]
    assert len(found) == 2 and {record.study for record in found} == {"tune"}
    assert all("the validation half of each set" in record.notes for record in found)
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert again.stderr.count("Already finished") == 2
