"""Training methods in several processes, through accelerate.

The run itself stays one process: it hands the model and the request over in files, the workers
train, and it goes on with the model they leave. Scoring, records and caches know nothing of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from omegaconf import OmegaConf

from unierase.errors import UserError
from unierase.experiment.checkpoint import STATE, read_state, write_state
from unierase.files import is_complete, read_json, replace_folder, write_json, write_text
from unierase.models.sources import ModelSource
from unierase.models.training import Schedule
from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench
from unierase.rows import Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel


class Parallel(Protocol):
    """How many processes a method trains in."""

    def over(
        self, method: UnlearningMethod, config: Mapping[str, Any], source: ModelSource
    ) -> UnlearningMethod:
        """``method`` in these processes. config: the run's, resolved: workers go by it."""


@dataclass(frozen=True)
class OneProcess:
    """No other process than the run's own."""

    def over(
        self, method: UnlearningMethod, config: Mapping[str, Any], source: ModelSource
    ) -> UnlearningMethod:
        return method


@dataclass(frozen=True)
class Accelerated:
    """``processes`` workers, started by `accelerate launch`.

    accelerate: settings as `accelerate config` writes them.
    """

    processes: int
    accelerate: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise UserError(f"parallel.processes={self.processes}: must be at least 1")

    def over(
        self, method: UnlearningMethod, config: Mapping[str, Any], source: ModelSource
    ) -> UnlearningMethod:
        if not isinstance(method, Schedule):
            raise UserError(
                f"parallel.processes={self.processes}: method={config['method']['name']} trains "
                "nothing that could be shared; use parallel=none"
            )
        if method.batch_size % self.processes:
            raise UserError(
                f"parallel.processes={self.processes}: must divide method.batch_size="
                f"{method.batch_size}"
            )
        return InProcesses(method, config, source, self)

    def settings(self) -> dict[str, Any]:
        """The whole of accelerate's settings."""
        return {
            "compute_environment": "LOCAL_MACHINE",
            "num_machines": 1,
            "machine_rank": 0,
            "num_processes": self.processes,
            "mixed_precision": "no",
            "main_process_port": 0,  # any free one
            **OmegaConf.to_container(OmegaConf.create(dict(self.accelerate))),  # type: ignore[dict-item]
        }

    def command(self, device: str, settings: Path) -> list[str]:
        """What starts the workers, but for the module they run; writes ``settings``."""
        if device == "cpu":
            kind = self.accelerate["distributed_type"]
            if kind != "MULTI_GPU":
                raise UserError(
                    f"parallel.accelerate.distributed_type={kind}: needs GPUs; use parallel=ddp"
                )
            # accelerate's own launcher starts a single process where there is no GPU.
            processes = f"--nproc_per_node={self.processes}"
            return [sys.executable, "-m", "torch.distributed.run", "--standalone", processes]
        write_json(settings, self.settings())
        launch = [sys.executable, "-m", "accelerate.commands.launch"]
        return [*launch, "--config_file", str(settings)]


@dataclass(frozen=True)
class InProcesses(UnlearningMethod):
    """``method``, with its training done by the processes of ``parallel``."""

    method: UnlearningMethod
    config: Mapping[str, Any]
    source: ModelSource
    parallel: Accelerated

    def check(self, model: PreTrainedModel) -> None:
        self.method.check(model)

    def cost(self, model: PreTrainedModel, request: UnlearningRequest) -> str | None:
        cost = self.method.cost(model, request)
        return cost and f"{cost}, in {self.parallel.processes} processes"

    def restore(self, lm: LanguageModel, state: State) -> LanguageModel:
        return self.method.restore(lm, state)

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        device = lm.device.type
        job = Job(bench.work_dir)
        if is_complete(job.result):  # a run that was killed had come so far
            return job.take(0, self.source, device)
        command = self.parallel.command(device, job.settings)
        processes = self.parallel.processes
        job.give(lm, request, state, {**self.config, "device": device, "processes": processes})
        lm.model.to("cpu")  # the workers need the room
        command += ["-m", "unierase.experiment.worker", str(bench.work_dir)]
        environment = {**os.environ, "ACCELERATE_USE_CPU": str(device == "cpu").lower()}
        # A pipe that closes when this process ends, however it ends: the workers end with it.
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as workers:
            try:
                code = workers.wait()
            except BaseException:
                workers.terminate()
                raise
        return job.take(code, self.source, device)


class Job:
    """What run and workers hand each other, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "accelerate.json"
        self.given, self.result, self.error = folder / "given", folder / "result", folder / "error"

    def give(
        self,
        lm: LanguageModel,
        request: UnlearningRequest,
        state: State,
        config: Mapping[str, Any],
    ) -> None:
        """Write what the workers start from, unless a run that was killed did."""
        self.error.unlink(missing_ok=True)
        if is_complete(self.given):
            return

        def build(path: Path) -> None:
            lm.save(path / "model")
            write_state(path / STATE, state)
            write_json(path / "request.json", asdict(request))
            write_text(path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))

        replace_folder(self.given, build)

    def request(self) -> UnlearningRequest:
        """The request as it was given."""
        values = read_json(self.given / "request.json")
        for name in ("forget", "retain"):
            values[name] = tuple(map(_row, values[name]))
        values["earlier"] = tuple(tuple(map(_row, rows)) for rows in values["earlier"])
        return UnlearningRequest(**{**values, "refusals": tuple(values["refusals"])})

    def finish(self, unlearned: Unlearned) -> None:
        """Write what the workers made."""

        def build(path: Path) -> None:
            unlearned.lm.save(path / "model")
            write_state(path / STATE, unlearned.state)
            write_json(path / "report.json", dict(unlearned.report))

        replace_folder(self.result, build)

    def fail(self, text: str, by_user: bool) -> None:
        """Write what ended the workers; the first of them to fail has the word."""
        if not self.error.exists():
            write_json(self.error, {"text": text, "by_user": by_user})

    def take(self, code: int, source: ModelSource, device: str) -> Unlearned:
        """What the workers made, or the error that ended them."""
        if self.error.exists():
            error = read_json(self.error)
            if error["by_user"]:
                raise UserError(error["text"])
            raise RuntimeError(f"a worker of parallel= failed:\n{error['text']}")
        if not is_complete(self.result):
            raise RuntimeError(f"the workers of parallel= ended with code {code} and no result")
        lm = source.load(self.result / "model", device)
        report = read_json(self.result / "report.json")
        return Unlearned(lm, read_state(self.result / STATE), report)


def _row(values: Mapping[str, Any]) -> Row:
    """A row from JSON, which knows no tuples."""
    own: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Row(**own)
