"""The best settings that tuning found, as configs for `+tuned=`.

python scripts/tuned.py [--runs runs] [--out conf/tuned] [--kept MU]

Reads the trials of `experiment=tune_*` below --runs and writes, for each model and data, the
settings of the trial with the highest Balance of each method, with their provenance. With
--kept RE what is kept counts as RE, of retained rows alone: MU hangs on what a small model knows
of real authors and the world, a few answers. A method is
run with them by `python run.py data=tofu +tuned=tiny-tofu-forget01-batch/npo_gd`, all methods by
`--multirun '+tuned/tiny-tofu-forget01-batch=glob(*)'`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from unierase.errors import UserError
from unierase.experiment.record import RunRecord, read_record
from unierase.files import write_text
from unierase.run_values import METHOD_PARTS

STUDY = "tune"


@dataclass(frozen=True)
class Trial:
    """A finished trial: its record, what it set of its method, and its score: the harmonic mean of
    FE and ``kept``, one of ``KEPT``."""

    record: RunRecord
    settings: Mapping[str, object]
    kept: str
    score: float


KEPT = ("MU", "RE")


def read_trials(runs: Path, kept: str) -> list[Trial]:
    """Every finished trial below ``runs`` with FE and ``kept``, one of ``KEPT``."""
    if not runs.is_dir():
        raise UserError(f"runs={runs}: no such folder; tune a method first (experiment=tune_*)")
    trials = []
    for path in sorted(runs.rglob("result.json")):
        record = read_record(path)
        after = record.after or {}
        numbers = [after[name] for name in ("FE", kept) if after.get(name) is not None]
        if record.study != STUDY or record.status != "finished" or len(numbers) < 2:
            continue
        score = float(statistics.harmonic_mean(numbers))
        if record.settings is None:
            raise UserError(f"{path}: does not say what was set of its method; tune it again")
        chosen = sorted(name for name in record.settings if "/" in name or name == "training")
        if chosen:
            raise UserError(
                f"{path}: set {chosen[0]}={record.settings[chosen[0]]} by choosing a config; only "
                "single values (method.x=..., model.unlearning.x=...) can be written to conf/tuned"
            )
        trials.append(Trial(record, record.settings, kept, score))
    return trials


def best_of(trials: Sequence[Trial]) -> dict[tuple[str, str], tuple[Trial, int]]:
    """The best trial, and the number of trials, by (model and data, method); ties: the first."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        r = trial.record
        groups.setdefault((f"{r.model}-{r.data}-{r.split}-{r.scenario}", r.method), []).append(
            trial
        )
    return {
        key: (max(members, key=lambda trial: trial.score), len(members))
        for key, members in groups.items()
    }


def as_config(where: str, trial: Trial, count: int) -> str:
    """The YAML of one method's tuned settings."""
    record, after = trial.record, trial.record.after or {}
    commit = (record.git_commit or "unknown")[:10]
    head = [
        "# @package _global_",
        f"# python run.py model={record.model} data={record.data} +tuned={where}/{record.method}",
        f"# Tuned on {record.data}/{record.split}, {record.scenario}, seed {record.seed}:",
        *(f"# {note}" for note in record.notes),
        f"# {_best_of(count)}; {_chosen_by(trial.kept)} {trial.score:.4f}, FE {after['FE']:.4f}, "
        f"{trial.kept} {after[trial.kept]:.4f}; commit {commit}.",
        "defaults:",
        f"  - override /method: {record.method}",
        "",
    ]
    if not trial.settings:  # nothing to tune: the method as it is
        return "\n".join(head).rstrip() + "\n"
    values = OmegaConf.create({"method": {"name": f"{record.method}-tuned"}})
    for name, value in trial.settings.items():
        elsewhere = name.startswith(METHOD_PARTS)
        OmegaConf.update(values, name if elsewhere else f"method.{name}", value)
    return "\n".join(head) + OmegaConf.to_yaml(values)


def _chosen_by(kept: str) -> str:
    return "Balance" if kept == "MU" else f"harmonic mean of FE and {kept}"


def _best_of(count: int) -> str:
    return "The only trial" if count == 1 else f"Best of {count} trials"


def write_tuned(trials: Sequence[Trial], out: Path) -> list[Path]:
    """One file for each method, in a folder for each model and data."""
    best = best_of(trials)
    if not best:
        raise UserError("no finished trial found; tune a method first (experiment=tune_*)")
    written = []
    for (where, method), (trial, count) in sorted(best.items()):
        path = out / where / f"{method}.yaml"
        write_text(path, as_config(where, trial, count))
        written.append(path)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the trials lie")
    parser.add_argument("--out", type=Path, default=Path("conf/tuned"), help="folder to write")
    parser.add_argument("--kept", choices=KEPT, default="MU", help="what counts beside FE")
    arguments = parser.parse_args()
    try:
        trials = read_trials(arguments.runs, arguments.kept)
        for path in write_tuned(trials, arguments.out):
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
