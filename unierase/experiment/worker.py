"""One of the processes of ``parallel=``; `accelerate launch` starts it, no one else."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from unierase.errors import UserError

if TYPE_CHECKING:
    from unierase.experiment.parallel import Job
    from unierase.models.language_model import LanguageModel
    from unierase.rows import Row


def main(folder: Path) -> int:
    """Do the job in ``folder``; 0 if it is done."""
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    from unierase.experiment.parallel import Job

    job = Job(folder)
    try:
        _work(job, int(os.environ.get("LOCAL_RANK", "0")))
    except UserError as error:
        job.fail(str(error), by_user=True)
        return 1
    except Exception:
        job.fail(traceback.format_exc(), by_user=False)
        return 1
    return 0


def _end_with_the_run() -> None:
    """The run holds the other end of standard input: it closes when the run is gone."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def _work(job: Job, rank: int) -> None:
    import torch
    from accelerate import PartialState
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from unierase.bfloat16 import widen_bfloat16_products
    from unierase.experiment.checkpoint import STATE, read_state
    from unierase.memory import keep_freed_memory
    from unierase.quiet import quiet_libraries
    from unierase.request import Workbench

    quiet_libraries()
    keep_freed_memory()
    widen_bfloat16_products()
    cfg = OmegaConf.load(job.given / "config.yaml")
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != cfg.processes:  # a launcher may fall back to a single one, and say nothing
        raise RuntimeError(f"{started} of {cfg.processes} processes were started")
    cuda = cfg.device == "cuda"
    if cuda:
        torch.cuda.set_device(rank)
    lm = instantiate(cfg.model.source).load(job.given / "model", f"cuda:{rank}" if cuda else "cpu")
    bench = Workbench(job.folder / "workers", Path(cfg.paths.cache), _NoModels())
    method = instantiate(cfg.method)
    unlearned = method.unlearn(lm, job.request(), read_state(job.given / STATE), bench)
    processes = PartialState()
    if processes.is_main_process:
        job.finish(unlearned)
    processes.wait_for_everyone()
    processes.destroy_process_group()


class _NoModels:
    """Workers train what they are given."""

    def retrained(self, rows: tuple[Row, ...]) -> LanguageModel:
        raise NotImplementedError("workers make no retrained models")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
