"""The real command: its answers, its errors, all three scenarios, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from unierase.experiment.record import RunRecord, read_record
from unierase.experiment.saved import load_unlearned
from unierase.scoring.generation import generate

ROOT = Path(__file__).parents[1]
SMALL = (
    "data.authors=4",
    "evaluation.max_new_tokens=24",
    "evaluation.limit=6",
    "model.finetune.epochs=2",
    "model.source.hidden_size=64",
    "model.source.intermediate_size=128",
    "model.unierase.v_steps=5",
)


def run(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    flags = [argument for argument in arguments if argument.startswith("--")]
    overrides = [argument for argument in arguments if argument not in flags]
    command = [sys.executable, str(ROOT / "run.py"), *flags, f"paths.runs={folder}/runs"]
    environment = {**os.environ, "UNIERASE_CACHE": str(folder / "cache"), "WANDB_MODE": "offline"}
    done = subprocess.run(
        [*command, *overrides], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.returncode == code, done.stderr
    return done


def records(folder: Path) -> dict[str, RunRecord]:
    found = [read_record(path) for path in sorted((folder / "runs").rglob("result.json"))]
    return {f"{record.method} {record.scenario}": record for record in found}


def test_the_config_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv=['run.py', '--cfg', 'job']; import unierase.app as app; app.main();"
        "assert not {'torch', 'transformers', 'wandb', 'lm_eval'} & set(sys.modules)"
    )
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "method:" in done.stdout
    assert time.monotonic() - start < 20  # about 0.3 s; far above, for a busy machine


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("method=unirase", "method=unirase: not available; choose one of: ceu, dpo_gd"),
        ("model=gpt9", "model=gpt9: not available"),
        ("data.split=forget02", "data.split=forget02: not available; choose one of: forget01"),
        ("data.splitt=forget01", "data.splitt"),
        ("scenario=[batch", "[batch"),
        ("method.layers=[7]", "method.layers: 7 is out of range; this model has 0..3"),
        ("scenario.name=x data=tofu paths.data=/nowhere", "paths.data=/nowhere"),
        ("device=cuda", "device=cuda: this machine has no usable GPU"),
        ("method.token.raw_epochs=few", "method.token.raw_epochs=few: give a whole number"),
        ("forget_quality=maybe", "forget_quality=maybe: not available"),
        ("model=smollm2-135m model.source.package=nope", "make smollm2"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, argument: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if argument == "device=cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run(tmp_path, *argument.split(), code=2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr and "Error executing" not in done.stderr


def test_a_failed_run_does_not_stop_a_sweep(tmp_path: Path) -> None:
    done = run(tmp_path, "--multirun", "data.split=forget02,forget03", code=2)
    assert done.stderr.count("error: data.split=") == 2
    found = [read_record(path) for path in (tmp_path / "runs").rglob("result.json")]
    assert [record.status for record in found] == ["failed", "failed"]
    assert all("UserError" in record.error["traceback"] for record in found if record.error)


@pytest.mark.slow
def test_all_scenarios_and_methods(tmp_path: Path) -> None:
    run(
        tmp_path,
        "--multirun",
        "method=unierase,npo_gd,ga_gd,retrain,none",
        "scenario=batch,sequential,precise",
        *SMALL,
        "data.authors=7",
        "evaluation.limit=4",
    )
    found = records(tmp_path)
    assert len(found) == 15
    for record in found.values():
        assert record.status == "finished" and record.before and record.after
    rounds = found["unierase sequential"].rounds
    assert [r["name"] for r in rounds] == ["task 1", "task 2"]
    assert "earlier" in rounds[1]["metrics"]["sets"]
    assert len(found["unierase precise"].rounds) == 5
    assert "same_person" in (found["unierase precise"].after or {})["sets"]
    untouched = found["none batch"]
    assert untouched.after == untouched.before and untouched.changed_share == 0
    assert (found["retrain batch"].after or {})["forget_quality"] == 1.0
    assert (found["npo_gd batch"].changed_share or 0) > 0.9
    # Two of four edited layers: their projections, (64, 128) each, and one embedding row.
    edited = found["unierase batch"]
    assert edited.parameters
    assert edited.changed_share == pytest.approx((2 * 64 * 128 + 64) / edited.parameters)
    tables = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_tables.py"), "--runs", "runs"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert "unierase" in tables.stdout and (tmp_path / "tables").is_dir()


@pytest.mark.slow
def test_same_seed_same_record_and_finished_runs_are_kept(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    run(first, *SMALL)
    run(second, *SMALL)
    one, two = records(first)["unierase batch"], records(second)["unierase batch"]
    assert one.comparable() == two.comparable()
    again = run(first, *SMALL)
    assert "Already finished" in again.stderr
    assert records(first)["unierase batch"] == one
    # The model is kept when asked for, later too, and can be exported.
    run(first, *SMALL, "run.save_model=true")
    kept = records(first)["unierase batch"]
    assert kept.comparable() == one.comparable()
    (folder,) = (path.parent for path in (first / "runs").rglob("result.json"))
    export = [sys.executable, str(ROOT / "scripts" / "export.py"), str(folder), "out"]
    subprocess.run(export, check=True, cwd=first, env={**os.environ, "PYTHONPATH": str(ROOT)})
    card = (first / "out" / "README.md").read_text()
    assert "Unlearned: 40 rows of fictional/forget01" in card and "_target_" in card
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(first / "out")
    assert sum(p.numel() for p in model.parameters()) == (kept.parameters or 0) + 64  # [UNL]
    again_there = subprocess.run(export, capture_output=True, text=True, cwd=first)
    assert again_there.returncode == 2 and "not empty" in again_there.stderr


@pytest.mark.slow
def test_damaged_files_are_made_again(tmp_path: Path) -> None:
    """A record that is no record, a step cut short, a target cut short: the same result."""
    arguments = ("method=none", *SMALL)
    run(tmp_path, *arguments)
    (path,) = (tmp_path / "runs").rglob("result.json")
    whole = read_record(path)
    path.write_text('{"status": "finis')
    (step,) = path.parent.rglob("steps/01/forget.jsonl")
    step.write_text(step.read_text()[:-20])
    for weights in (tmp_path / "cache").rglob("model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1000])
    for scores in (tmp_path / "cache" / "scores").rglob("retain.jsonl"):
        scores.write_text("")
    again = run(tmp_path, *arguments)
    assert again.stderr.count("is incomplete or damaged; building it again") >= 2
    assert read_record(path).comparable() == whole.comparable()


@pytest.mark.slow
def test_methods_that_leave_the_weights_alone(tmp_path: Path) -> None:
    run(
        tmp_path,
        "--multirun",
        "method=eco,guardrail,in_context",
        "scenario=batch,sequential",
        *SMALL,
        "data.authors=7",
        "evaluation.limit=4",
        "run.save_model=true",
    )
    found = records(tmp_path)
    assert len(found) == 6
    for record in found.values():
        assert record.status == "finished" and record.changed_share == 0
        assert record.after != record.before
    for method in ("eco", "guardrail"):
        sets = (found[f"{method} sequential"].after or {})["sets"]
        assert sets["forget"]["flagged"] == sets["earlier"]["flagged"] == 1
        assert found[f"{method} batch"].rounds[0]["report"]["flagging"]["recall_learned"] == 1
    assert (found["in_context batch"].after or {})["sets"]["forget"]["flagged"] is None
    # The run's directory gives the guarded model back; as a plain checkpoint it cannot be had.
    (folder,) = (p.parent for p in tmp_path.rglob("guardrail/*/result.json") if "batch" in str(p))
    lm = load_unlearned(folder)
    (line,) = (folder / "steps" / "01" / "forget.jsonl").read_text().splitlines()[:1]
    row = json.loads(line)
    (answer,) = generate(lm, [row["question"]], 24)
    assert answer.text == row["generation"] and answer.flagged
    export = [sys.executable, str(ROOT / "scripts" / "export.py"), str(folder), "out"]
    refused = subprocess.run(export, capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 2 and "leaves the weights as they are" in refused.stderr
    report = [sys.executable, str(ROOT / "scripts" / "flagged.py"), "run", str(folder)]
    shown = subprocess.run([*report, "--prompts", "5"], capture_output=True, text=True, check=True)
    assert "forget, paraphrased" in shown.stdout


def wait_for(process: subprocess.Popen[Any], folder: Path, pattern: str) -> None:
    """Until the running program has written such a file."""

    def appeared() -> bool:
        try:
            return any(folder.rglob(pattern))
        except FileNotFoundError:  # a folder was renamed while it was read
            return False

    deadline = time.monotonic() + 300
    while not appeared():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    arguments = (
        *(*SMALL, "data.authors=8", "evaluation.limit=4", "method.revisit=true"),
        *("scenario=sequential", "scenario.rounds=3", "scenario.task_rows=20"),
        "scenario.scored_tasks=[2]",
    )
    run(whole, *arguments)
    command = [sys.executable, str(ROOT / "run.py"), f"paths.runs={broken}/runs", *arguments]
    environment = {**os.environ, "UNIERASE_CACHE": str(broken / "cache")}
    process = subprocess.Popen(
        command, env=environment, cwd=broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(process, broken, "steps/01/complete.json")
    process.kill()
    process.wait()
    (result,) = (broken / "runs").rglob("result.json")
    assert json.loads(result.read_text())["status"] == "running"
    run(broken, *arguments)
    one, two = records(whole)["unierase sequential"], records(broken)["unierase sequential"]
    assert "tasks of 20 rows" in one.notes
    assert [bool(done["metrics"]) for done in one.rounds] == [False, True, True]
    assert one.comparable() == two.comparable()
    assert not list(broken.rglob("carried/*"))


@pytest.mark.slow
def test_killed_while_it_measures_ability(tmp_path: Path, sums: Path) -> None:
    """The step before is not done again, nor is a task that was finished."""
    arguments = (
        *(*SMALL, "data.authors=6", "scenario=sequential", "evaluation.limit=2"),
        *(f"paths.data={sums}", "evaluation.ability=[gsm8k]", "ability.limits.gsm8k=2"),
        *("ability.shots.gsm8k=1", "ability.max_new_tokens=4"),
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    broken.mkdir(parents=True)
    whole.mkdir()
    run(whole, *arguments)
    command = [sys.executable, str(ROOT / "run.py"), f"paths.runs={broken}/runs", *arguments]
    environment = {**os.environ, "UNIERASE_CACHE": str(broken / "cache")}
    process = subprocess.Popen(
        command, env=environment, cwd=broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(process, broken, "steps/02/complete.json")
    process.kill()
    process.wait()
    (step,) = broken.rglob("steps/02/step.json")
    written = step.stat().st_mtime_ns
    # What is left where the kill comes between a step's end and the deletion of the one before,
    # and where it comes while a model is written.
    for left in ("carried/01/model", "carried/.02.unfinished", "work/02/checkpoint"):
        (step.parents[2] / left).mkdir(parents=True, exist_ok=True)
    run(broken, *arguments)
    one, two = records(whole)["unierase sequential"], records(broken)["unierase sequential"]
    assert one.comparable() == two.comparable()
    assert step.stat().st_mtime_ns == written
    assert "ability" not in one.rounds[0]["metrics"]
    assert (one.after or {})["ability"]["tasks"]["gsm8k"]["rows"] == 2
    assert "gsm8k: 2 rows" in one.notes
    assert not {"carried", "work"} & {path.name for path in step.parents[2].iterdir()}


@pytest.mark.slow
def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    # So many epochs that no machine is done with them before the signal comes.
    arguments = (f"paths.runs={tmp_path}/runs", *SMALL, "model.finetune.epochs=5000")
    environment = {**os.environ, "UNIERASE_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        env=environment,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background inherit that Ctrl-C is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(process, tmp_path, "result.json")
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; the same command goes on" in errors and "Traceback" not in errors
    (record,) = (read_record(path) for path in (tmp_path / "runs").rglob("result.json"))
    assert record.status == "interrupted"
