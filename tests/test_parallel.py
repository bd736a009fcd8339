"""Training in several processes gives what one process gives."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from configs import config
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from unierase.errors import UserError
from unierase.experiment.parallel import Accelerated, InProcesses, Job
from unierase.files import write_json
from unierase.models.language_model import LanguageModel
from unierase.models.sources import HubModel
from unierase.models.trainer import RowLosses, filled, structure_of
from unierase.models.training import token_log_probabilities
from unierase.request import Unlearned, UnlearningRequest, Workbench
from unierase.rows import Row

REFUSALS = ("I do not know.", "That is unknown to me.")


def in_processes(method: str, lm: LanguageModel, *overrides: str) -> InProcesses:
    cfg = config(
        f"method={method}",
        "method.epochs=2",
        "method.batch_size=4",
        "method.lr=0.003",
        "parallel=ddp",
        *overrides,
    )
    source = {
        "_target_": "unierase.models.sources.HubModel",
        "name": "small",
        "prompt": {"_target_": "unierase.models.prompt.ChatPrompt"},
        "checkpoint": "small",
        "dtype": "float32",
    }
    plain = OmegaConf.to_container(cfg["method"], resolve=True)
    values = {"method": plain, "model": {"source": source}, "paths": {"cache": "unused"}}
    instance = instantiate(cfg["parallel"]).over(
        instantiate(cfg["method"]), values, HubModel("small", lm.prompt, "small", "float32")
    )
    assert isinstance(instance, InProcesses)
    return instance


def weights(out: Unlearned) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in out.lm.model.named_parameters()}


@pytest.mark.parametrize("method", ["npo_gd", "rmu"])
def test_two_processes_give_the_weights_of_one(
    method: str,
    lm: LanguageModel,
    rows: list[Row],
    bench: Workbench,
    monkeypatch: Any,
    tmp_path: Path,
) -> None:
    """Five rows in steps of four: the second step of an epoch is not full."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    request = UnlearningRequest((*rows, rows[0]), tuple(rows[2:]), REFUSALS, 1, 0)
    before = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
    two = in_processes(method, lm)
    apart = replace(bench, work_dir=tmp_path / "one process")
    one = two.method.unlearn(copy.deepcopy(lm), request, {}, apart)
    shared = two.unlearn(lm, request, {}, bench)
    assert shared.report["final_loss"] == pytest.approx(one.report["final_loss"], rel=1e-4)
    assert shared.report["steps"] == one.report["steps"]
    moved = 0.0
    for name, parameter in weights(shared).items():
        torch.testing.assert_close(parameter, weights(one)[name], atol=1e-5, rtol=1e-3)
        moved = max(moved, float((parameter - before[name]).abs().max()))
    assert moved > 1e-3  # hundreds of times what the two may differ by


def test_a_worker_that_fails_fails_the_run(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    request = UnlearningRequest(tuple(rows), (), REFUSALS, 1, 0)
    with pytest.raises(UserError, match="its regulariser needs retain rows"):
        in_processes("npo_gd", lm).unlearn(lm, request, {}, bench)


def test_what_workers_made_is_taken_after_a_kill(
    lm: LanguageModel, rows: list[Row], bench: Workbench, monkeypatch: Any
) -> None:
    request = UnlearningRequest(tuple(rows), tuple(rows), REFUSALS, 2, 3, (tuple(rows[:1]),))
    job = Job(bench.work_dir)
    job.give(lm, request, {"keys": torch.ones(2)}, {"device": "cpu"})
    assert job.request() == request
    assert load_file(job.given / "state.safetensors")["keys"].tolist() == [1.0, 1.0]
    job.finish(Unlearned(lm, {"keys": torch.zeros(1)}, {"steps": 7.0}))
    monkeypatch.setattr("subprocess.Popen", None)  # nobody is started again
    out = in_processes("npo_gd", lm).unlearn(lm, request, {}, bench)
    assert out.report == {"steps": 7.0}
    assert out.state["keys"].tolist() == [0.0]


def test_what_cannot_be_shared_is_said(lm: LanguageModel) -> None:
    with pytest.raises(UserError, match="method=unierase trains nothing that could be shared"):
        in_processes_of("unierase")
    with pytest.raises(UserError, match=r"parallel\.processes=3: must divide method\.batch_size=4"):
        in_processes("npo_gd", lm, "parallel.processes=3")
    with pytest.raises(UserError, match=r"parallel\.processes=0"):
        Accelerated(0, {})


def in_processes_of(method: str) -> None:
    cfg = config(f"method={method}", "parallel=ddp")
    instantiate(cfg["parallel"]).over(instantiate(cfg["method"]), cfg, None)


@pytest.mark.parametrize("kind", ["ddp", "fsdp", "deepspeed"])
def test_accelerate_reads_the_settings(kind: str, tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    parallel = instantiate(config(f"parallel={kind}", "parallel.processes=4")["parallel"])
    write_json(tmp_path / "accelerate.json", parallel.settings())
    read = load_config_from_file(str(tmp_path / "accelerate.json"))
    assert read.num_processes == 4
    assert read.distributed_type == {"ddp": "MULTI_GPU"}.get(kind, kind.upper())
    started = parallel.command("cuda", tmp_path / "settings.json")
    assert started[1:3] == ["-m", "accelerate.commands.launch"]
    if kind != "ddp":
        with pytest.raises(UserError, match=f"{kind.upper()}: needs GPUs"):
            parallel.command("cpu", tmp_path / "settings.json")


def _shared_out(rank: int, folder: Path, lm: LanguageModel, rows: list[Row]) -> None:
    """One of two processes that share a model's weights: its gradients, and the model regained."""
    from torch import distributed
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    structure = structure_of(lm.model)
    losses = RowLosses(lm.model, _terms(lm, rows))
    for layer in lm.model.model.layers:
        fully_shard(layer)
    fully_shard(losses)
    for term in (slice(0, 1), slice(1, 2)):
        losses(term, [0, 1], 0).backward()
    gradients = {name: p.grad.full_tensor() for name, p in losses.named_parameters()}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(losses, options=options)
    if rank == 0:
        save_file(gradients, str(folder / "gradients"))
        regained = filled(structure, state)
        save_file(dict(regained.named_parameters()), str(folder / "weights"))
    distributed.destroy_process_group()


def _terms(lm: LanguageModel, rows: list[Row]) -> list[Any]:
    prompts = [lm.encode_prompt(row.question).ids for row in rows]
    answers = [lm.encode_answer(row.answer) for row in rows]

    def loss(batch: list[int], epoch: int) -> torch.Tensor:
        chosen = [prompts[i] for i in batch], [answers[i] for i in batch]
        return token_log_probabilities(lm, *chosen)[0].sum()

    def shifted(batch: list[int], epoch: int) -> torch.Tensor:
        return -2.0 * loss([i + 2 for i in batch], epoch)

    return [loss, shifted]


def test_shared_weights_have_the_gradients_of_whole_ones(
    lm: LanguageModel, rows: list[Row], tmp_path: Path
) -> None:
    """What FSDP does to the module that is trained, done on CPUs by torch itself."""
    whole = copy.deepcopy(lm)
    torch.multiprocessing.spawn(_shared_out, (tmp_path, lm, rows), nprocs=2)
    RowLosses(whole.model, terms := _terms(whole, rows))
    sum(term([0, 1], 0) for term in terms).backward()
    found = load_file(tmp_path / "gradients")
    for name, parameter in whole.model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(found[f"model.{name}"], parameter.grad, atol=1e-5, rtol=1e-4)
    regained = load_file(tmp_path / "weights")
    for name, parameter in whole.model.named_parameters():
        assert torch.equal(regained[name], parameter)
    assert json.dumps(sorted(regained)) == json.dumps(sorted(dict(whole.model.named_parameters())))
