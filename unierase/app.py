"""The command line: ``python run.py`` or ``unierase-bench``."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from unierase.errors import UserError
from unierase.run_names import register_resolvers
from unierase.run_values import method_settings, run_key
from unierase.sweep import JOURNAL, in_sweep, note, summary

if TYPE_CHECKING:
    from unierase.experiment.record import RunRecord

log = logging.getLogger(__name__)


class RunFailed(Exception):
    """A run that wrote its record and ended badly; ``code`` is the program's exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.message = message
        self.code = code


def config_root() -> Path:
    """conf/ of a checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"


@dataclass(frozen=True)
class Outcome:
    """Of a run that is finished: its Balance, where it has one, and whether it had been before."""

    balance: float | None
    skipped: bool = False


def execute(cfg: DictConfig, folder: Path, settings: Mapping[str, Any]) -> Outcome:
    """Run ``cfg`` in ``folder`` and write its record, whatever happens.

    settings: what the command set of the method, for the record.

    Waits for another process that runs the same. Raises ``RunFailed`` after the record is written.
    """
    from filelock import FileLock, Timeout

    from unierase.experiment.progress import LOCK

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("Another process is at this experiment; waiting for it (%s)", folder)
        lock.acquire()
    try:
        return _execute(cfg, folder, settings)
    finally:
        lock.release()


def _execute(cfg: DictConfig, folder: Path, settings: Mapping[str, Any]) -> Outcome:
    from unierase.bfloat16 import widen_bfloat16_products
    from unierase.experiment.checkpoint import RunFolder
    from unierase.experiment.record import Clock, RunRecord, git_commit, installed_versions, now
    from unierase.experiment.report import print_result
    from unierase.experiment.run import run_experiment
    from unierase.memory import keep_freed_memory
    from unierase.quiet import quiet_libraries

    quiet_libraries()
    keep_freed_memory()
    key = run_key(cfg)
    files = RunFolder(folder)
    finished = _finished_record(folder, key) if cfg.run.resume else None
    if cfg.run.save_model and not files.has_model():
        finished = None
    if finished is not None:
        log.info("Already finished; run.resume=false runs it again")
        print_result(finished, str(folder))
        return Outcome((finished.after or {}).get("balance"), skipped=True)
    record = RunRecord(
        key=key,
        model=cfg.model.name,
        data=cfg.data.name,
        split=cfg.data.split,
        scenario=cfg.scenario.name,
        method=cfg.method.name,
        settings=dict(settings),
        seed=cfg.seed,
        study=cfg.study,
        versions=installed_versions(),
        git_commit=git_commit(),
        started=now(),
    )
    if not cfg.run.resume:
        files.clear()
    clock = Clock()
    tracked: Any = None
    try:
        record.write(folder)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True), encoding="utf-8")
        group = f"{record.data}-{record.split}-{record.model}-{record.scenario}"
        tracker = hydra.utils.instantiate(cfg.logger)
        config = OmegaConf.to_container(cfg, resolve=True)
        name = f"{record.method}-s{record.seed}-{key[:8]}"
        tracked = tracker.start(config, folder, name, group, key)
        widen_bfloat16_products()
        run_experiment(cfg, folder, record, clock, tracked)
        record.status = "finished"
    except KeyboardInterrupt as error:
        _fail(record, error, "interrupted")
        raise
    except Exception as error:
        cause = _user_error(error)
        _fail(record, error, "failed")
        log.debug("%s", record.error["traceback"] if record.error else "")
        if cause is not None:
            raise RunFailed(str(cause), 2) from None
        logging.getLogger("unierase.traceback").debug("", exc_info=error)
        what = " ".join(f"{type(error).__name__}: {error}".split())
        message = f"{what} (traceback in {folder / 'result.json'})"
        raise RunFailed(message, 1) from None
    finally:
        record.seconds = clock.seconds
        record.finished = now()
        record.write(folder)
        if tracked is not None:
            tracked.finish(record.status)
    print_result(record, str(folder))
    return Outcome((record.after or {}).get("balance"))


def check_tuned(choices: Mapping[str, str]) -> None:
    """Tuned settings are one method's: raise RunFailed where they meet another one."""
    for group, choice in choices.items():
        if group == "tuned" or group.startswith("tuned/"):
            tuned = str(choice).rpartition("/")[2]
            if tuned != choices["method"]:
                message = f"{group}={choice}: its settings are for method={tuned}"
                raise RunFailed(f"{message}, not method={choices['method']}", 2)


def _fail(record: RunRecord, error: BaseException, status: str) -> None:
    record.status = status
    record.error = {
        "type": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }


def _finished_record(folder: Path, key: str) -> RunRecord | None:
    from unierase.experiment.record import read_record

    path = folder / "result.json"
    if not path.exists():
        return None
    try:
        record = read_record(path)
    except UserError as error:
        log.warning("%s; the run is done again", error)
        return None
    return record if record.status == "finished" and record.key == key else None


def _user_error(error: BaseException | None) -> UserError | None:
    """The UserError behind ``error``: Hydra wraps what a constructor raises."""
    while error is not None:
        if isinstance(error, UserError):
            return error
        error = error.__cause__ or error.__context__
    return None


def one_line(error: Exception) -> str:
    """What Hydra or OmegaConf complains about, in one line with the valid choices."""
    from hydra.errors import MissingConfigException

    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, value = str(error.missing_cfg_file).rpartition("/")
        choices = [str(option) for option in error.options or ()]
        listed = f"; choose one of: {', '.join(sorted(choices))}" if choices else ""
        return f"{group}={value}: not available{listed}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    keep = [line for line in lines if not line.startswith(("full_key", "object_type", "set "))]
    text = " ".join(keep[:2]) if keep else type(error).__name__
    return f"{text} (python run.py --cfg job shows all options)"


def job(cfg: DictConfig) -> float | None:
    """One run, in whatever process a launcher put it. Returns its Balance, where it has one.

    A failed run of a sweep is told to its journal: the others go on. Alone, it ends the program.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    overrides = [str(item) for item in HydraConfig.get().overrides.task]
    command = shlex.join(["python", "run.py", *overrides])
    try:
        check_tuned(HydraConfig.get().runtime.choices)
        outcome = execute(cfg, folder, method_settings(overrides))
    except RunFailed as error:
        print(f"error: {error.message}", file=sys.stderr)
        if not in_sweep():
            sys.exit(error.code)  # raised, Hydra would have its own say
        note(folder, "failed", command, error.code)
        return None
    except KeyboardInterrupt:
        note(folder, "interrupted", command, 130)
        raise
    note(folder, "skipped" if outcome.skipped else "finished", command)
    return outcome.balance


def main() -> None:
    """Run, and turn every mistake into one line and an exit code: 2 for bad input, 1 for a
    failed run, 130 for Ctrl-C. A failed run does not stop the other runs of a sweep."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    # Hydra would print and exit by itself; this makes it raise.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    os.environ.pop(JOURNAL, None)  # a sweep that was started from within another one
    code = 0
    try:
        hydra.main(version_base="1.3", config_path=str(config_root()), config_name="config")(job)()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last finished step", file=sys.stderr)
        code = 130
    # A ValueError is Hydra's own, of options that exclude each other: a run's are RunFailed.
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        cause = _user_error(error)
        print(f"error: {cause or one_line(error)}", file=sys.stderr)
        code = 2
    except Exception as error:  # a launcher's: a job that died, a cluster that is not there
        if not in_sweep():
            raise
        log.debug("", exc_info=error)
        print(f"error: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        code = 1
    lines, failed = summary()
    for line in lines:
        print(line)
    sys.exit(code or failed)


# At import, for the processes of a launcher: they name their folders before they call ``job``.
register_resolvers()
