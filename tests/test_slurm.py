"""Sweeps on a real SLURM cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from configs import ROOT
from slurm_cluster import Cluster, obstacle

from unierase.experiment.record import read_record

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(obstacle() is not None, reason=str(obstacle())),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("slurm") / "cluster", cpus=2)
    yield started
    started.stop()


def command(runs: Path, *overrides: str) -> list[str]:
    return [
        *(sys.executable, str(ROOT / "run.py"), "--multirun", "experiment=debug"),
        *("forget_quality=false", f"paths.runs={runs}", f"paths.cache={runs.parent / 'cache'}"),
        *("hydra/launcher=slurm_cpu", "hydra.launcher.cpus_per_task=1", "device=cpu"),
        *("hydra.launcher.mem_gb=null", "hydra.launcher.timeout_min=20"),
        *overrides,
    ]


def results(runs: Path) -> dict[str, dict[str, Any]]:
    return {
        str(path.parent.relative_to(runs)): read_record(path).comparable()
        for path in sorted(runs.rglob("result.json"))
    }


def test_a_failed_job_neither_sinks_the_sweep_nor_goes_unnoticed(
    cluster: Cluster, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    sweep = command(runs, "method=none,ga_gd", "seed=0,wrong")
    done = subprocess.run(sweep, env=cluster.environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "4 runs: 2 finished, 2 failed" in done.stdout
    assert "seed=wrong" in done.stdout.split("to run again what is not finished:")[1]
    statuses = sorted(values["status"] for values in results(runs).values())
    assert statuses == ["failed", "failed", "finished", "finished"]
    again = subprocess.run(sweep, env=cluster.environment, capture_output=True, text=True)
    assert "4 runs: 2 skipped, 2 failed" in again.stdout


@pytest.mark.slow
def test_jobs_killed_at_any_moment_end_as_if_nothing_had_been(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Every running job is requeued, again and again; results are those of an unbroken sweep."""
    overrides = [
        "method=unierase,npo_gd",
        "scenario=sequential",
        "scenario.rounds=2",
        "data.authors=8",
    ]
    whole = command(tmp_path / "whole", *overrides)
    subprocess.run(whole, env=cluster.environment, check=True, capture_output=True)
    broken = tmp_path / "broken"
    sweep = subprocess.Popen(
        command(broken, *overrides),
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    kills = 0
    for pause in (3, 7, 9, 11, 13, 8):
        time.sleep(pause)
        for job in cluster.running():
            cluster.requeue(job)
            kills += 1
    out, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 0 and kills >= 2, out
    assert json.dumps(results(broken)) == json.dumps(results(tmp_path / "whole"))
