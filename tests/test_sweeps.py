"""Sweeps: what their runs report, what became of runs, and runs that meet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from configs import ROOT
from filelock import FileLock
from omegaconf import OmegaConf

from unierase import sweep
from unierase.errors import UserError
from unierase.experiment.progress import LOCK, RunStatus, command_of, is_running, run_statuses
from unierase.experiment.record import RunRecord


def record(status: str, **changes: object) -> RunRecord:
    return RunRecord(
        key="k",
        model="tiny",
        data="tofu",
        split="forget01",
        scenario="batch",
        method="ga",
        seed=0,
        status=status,
        after={"sets": {}} if status == "finished" else None,
        **changes,  # type: ignore[arg-type]
    )


def test_a_sweep_says_what_became_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(sweep.JOURNAL, raising=False)
    sweep.note(tmp_path / "alone", "failed", "x", 1)  # belongs to none
    assert sweep.summary() == ([], 0)
    monkeypatch.setenv(sweep.JOURNAL, "to be replaced")  # and removed when the test ends
    config = OmegaConf.create({"paths": {"runs": str(tmp_path)}})
    sweep.OpenJournal().on_multirun_start(config)
    assert sweep.in_sweep() and sweep.summary() == ([], 0)
    sweep.note(tmp_path / "a", "finished", "run a")
    sweep.note(tmp_path / "b", "skipped", "run b")
    assert sweep.summary() == (["2 runs: 1 finished, 1 skipped"], 0)
    sweep.note(tmp_path / "c", "failed", "run c", 1)
    sweep.note(tmp_path / "d", "failed", "run d", 2)
    lines, code = sweep.summary()
    assert lines[0] == "4 runs: 1 finished, 1 skipped, 2 failed" and code == 1
    assert lines[2:] == ["    run c", "    run d"]
    sweep.note(tmp_path / "c", "finished", "run c")  # queued again, it went through
    assert sweep.summary()[1] == 2


def test_statuses_are_told_from_folders(tmp_path: Path) -> None:
    folders = {name: tmp_path / "e" / name for name in ("done", "cut", "on", "bad", "broken")}
    record("finished").write(folders["done"])
    record("running").write(folders["cut"])
    record("running").write(folders["on"])
    record("failed", error={"type": "ValueError", "message": "boom"}).write(folders["bad"])
    folders["broken"].mkdir()
    (folders["broken"] / "result.json").write_text('{"key"')
    (folders["bad"] / ".hydra").mkdir()
    (folders["bad"] / ".hydra" / "overrides.yaml").write_text("- method=ga\n- data.x=[a, b]\n")
    (folders["cut"] / LOCK).touch()  # left by a process that is gone
    with FileLock(folders["on"] / LOCK):
        found = {run.folder.name: run for run in run_statuses(tmp_path)}
    assert {name: run.status for name, run in found.items()} == {
        "done": "finished",
        "cut": "broken off",
        "on": "running",
        "bad": "failed",
        "broken": "damaged",
    }
    assert found["bad"].why == " (ValueError: boom)"
    assert found["bad"].command == "python run.py method=ga 'data.x=[a, b]'"
    assert command_of(folders["done"]) is None and not is_running(folders["done"])
    wanted = run_statuses(tmp_path, [("e/done", "run done"), ("e/never", "run never")])
    assert wanted[1] == RunStatus(tmp_path / "e" / "never", "e", "missing", "", "run never")
    assert [run.status for run in wanted] == ["finished", "missing"]
    with pytest.raises(UserError, match="no such folder"):
        run_statuses(tmp_path / "none")


def status(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "status.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_names_what_is_missing(tmp_path: Path) -> None:
    done = status("--runs", str(tmp_path), "method=ga,npo", "seed=0,1")
    assert done.returncode == 1 and done.stdout.count("missing: ") == 4
    assert "python run.py method=npo seed=1" in done.stdout
    wrong = status("--runs", str(tmp_path), "method=nothing")
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ")
    record("finished").write(tmp_path / "e" / "a")
    whole = status("--runs", str(tmp_path))
    assert whole.returncode == 0 and "finished" in whole.stdout


@pytest.mark.slow
def test_two_sweeps_in_one_folder_do_every_run_once(tmp_path: Path) -> None:
    """Started together, each waits where the other one is at work."""
    command = [
        *(sys.executable, str(ROOT / "run.py"), "--multirun", "experiment=debug"),
        *("method=none,ga_gd", "forget_quality=false", "device=cpu"),
        *(f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}"),
    ]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    outcomes = [out.split("2 runs: ")[1].splitlines()[0] for out in said]
    done = sum(int(o.split(" finished")[0]) for o in outcomes if "finished" in o)
    assert done == 2, outcomes
    assert len(list((tmp_path / "runs").rglob("result.json"))) == 2


@pytest.mark.slow
def test_processes_of_one_machine_report_too(tmp_path: Path) -> None:
    command = [
        *(sys.executable, str(ROOT / "run.py"), "--multirun", "experiment=debug", "method=none"),
        *("seed=0,x", "forget_quality=false", "device=cpu", "hydra/launcher=joblib"),
        *("hydra.launcher.n_jobs=2", f"paths.runs={tmp_path}", f"paths.cache={tmp_path / 'cache'}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "2 runs: 1 finished, 1 failed" in done.stdout
