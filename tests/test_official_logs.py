"""The aggregates of TOFU's own logs."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.official_logs import aggregate_log, read_log
from unierase.errors import UserError

SCRIPT = Path(__file__).parents[1] / "scripts" / "aggregate_tofu.py"


def _logs(real_data: str) -> tuple[Path, Path]:
    folder = Path(real_data) / "reference" / "tofu_official_eval"
    if not folder.is_dir():
        pytest.skip("UNLEARN_DATA has no official evaluation logs")
    return next(folder.glob("*_full_*.gz")), next(folder.glob("*_retain90_*.gz"))


def test_official_figures(real_data: str) -> None:
    full, retain = (read_log(path) for path in _logs(real_data))
    ours = aggregate_log(full, retain)
    assert round(ours["model_utility"], 4) == 0.6227
    assert round(ours["forget_truth_ratio"], 4) == 0.5160
    theirs = aggregate_log(retain, retain)
    assert round(theirs["model_utility"], 4) == 0.6137
    assert round(theirs["forget_truth_ratio"], 4) == 0.6740
    assert theirs["forget_quality"] == pytest.approx(1.0)
    assert ours["forget_quality"] < 1e-15


def test_command(real_data: str) -> None:
    full, retain = _logs(real_data)
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(full), "--retrain", str(retain)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert round(json.loads(run.stdout)["model_utility"], 4) == 0.6227


@pytest.mark.parametrize("content", ["{", "[]", '{"eval_log.json": {}}'])
def test_bad_logs_are_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "log.json.gz"
    path.write_bytes(gzip.compress(content.encode()))
    with pytest.raises(UserError, match=r"log\.json\.gz"):
        read_log(path)
    run = subprocess.run([sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
