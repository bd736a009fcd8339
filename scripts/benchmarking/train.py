"""Step time and memory of unlearning by training, against plain training and the plain way.

sft: plain finetuning on two batches a step, of as many tokens as the method's forget and retain
batch. plain: the method as it is usually written: a second model in memory for what the first one
said before, logits at all positions, all losses in one graph.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from benchmarking.measure import (
    NoTargets,
    alone,
    composed,
    peak_memory,
    reset_peak_memory,
    untaught,
)

if TYPE_CHECKING:
    import torch

    from unierase.models.language_model import LanguageModel
    from unierase.request import UnlearningRequest

METHODS = ("ga_gd", "npo_gd", "npo_gd+lora", "dpo_gd", "ga_kl", "rmu")
PLAIN = ("ga_gd", "npo_gd", "npo_gd+lora")


@dataclass(frozen=True)
class Case:
    """A model that was taught nothing (weights do not change speed) and rows for it."""

    lm: LanguageModel
    request: UnlearningRequest


def _case(model: str, rows: int) -> Case:
    from unierase.request import UnlearningRequest

    lm, data = untaught(model)
    forget, retain = data.full[-rows:], data.full[:rows]
    return Case(lm, UnlearningRequest(forget, retain, data.refusals, 1, 0))


def timed(model: str, kind: str, name: str, batch_size: int, steps: int) -> dict[str, float]:
    """Seconds a step and the peak of memory above that of the loaded model.

    kind: "sft", "ours" or "plain". Runs in a process of its own. Seconds are those of further
    epochs: what is done once, before the first step, does not count.
    """
    import unierase.models.trainer  # noqa: F401  its code is no memory of a method

    case = _case(model, batch_size * steps)
    run = {"sft": _finetune, "ours": _unlearn, "plain": _plain}[kind]
    reset_peak_memory()
    before = peak_memory()
    seconds = []
    for epochs in (1, 1, 3):  # the first warms up: a first pass takes longer than any later one
        start = time.perf_counter()
        run(case, model, name, batch_size, epochs)
        seconds.append(time.perf_counter() - start)
    return {
        "seconds": (seconds[2] - seconds[1]) / (2 * steps),
        "memory": float(peak_memory() - before),
    }


def _finetune(case: Case, model: str, name: str, batch_size: int, epochs: int) -> None:
    from unierase.models.finetune import finetune

    recipe = instantiate(composed(f"model={model}").model.finetune)
    recipe = replace(
        recipe, epochs=epochs, batch_size=2 * batch_size, train_on_questions=False, lr=1e-5
    )
    finetune(case.lm, [*case.request.forget, *case.request.retain], recipe, "sft")


def _unlearn(case: Case, model: str, name: str, batch_size: int, epochs: int) -> None:
    from unierase.request import Workbench

    base, _, lora = name.partition("+")
    overrides = ["+method/lora=default"] if lora else []
    method = instantiate(composed(f"model={model}", f"method={base}", *overrides).method)
    method = replace(method, epochs=epochs, batch_size=batch_size, lr=1e-5)
    with TemporaryDirectory() as folder:
        bench = Workbench(Path(folder) / "work", Path(folder) / "cache", NoTargets())
        method.unlearn(case.lm, case.request, {}, bench)


def _plain(case: Case, model: str, name: str, batch_size: int, epochs: int) -> None:
    """NPO + GD or GA + GD with a reference model and all logits."""
    import torch
    from torch.nn import functional

    from unierase.models.finetune import encode_rows

    lm, base = case.lm, name.partition("+")[0]
    trained = lm.model
    if "+" in name:
        from baselines.lora import LoRA

        trained = LoRA(8, 16, 0.0).wrap(copy.deepcopy(lm.model), 0)
    reference = copy.deepcopy(lm.model) if base == "npo_gd" else None
    optimiser = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=1e-5)
    forget = encode_rows(lm, case.request.forget, 500)
    retain = encode_rows(lm, case.request.retain, 500)

    def losses(of: torch.nn.Module, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Any:
        """Summed loss of each answer and its tokens; every position gets its logits."""
        from unierase.scoring.batching import left_pad

        inputs = left_pad([(*p, *a) for p, a in pairs], lm.pad_id, lm.device)
        logits = of(**inputs, use_cache=False).logits[:, :-1].float()
        labels = torch.full_like(inputs["input_ids"], -100)
        for i, (_, answer) in enumerate(pairs):
            labels[i, -len(answer) :] = inputs["input_ids"][i, -len(answer) :]
        each = functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="none"
        ).view(len(pairs), -1)
        return each.sum(-1), (labels[:, 1:] >= 0).sum(-1)

    trained.train()
    for _ in range(epochs):
        for start in range(0, len(forget), batch_size):
            loss, tokens = losses(trained, forget[start : start + batch_size])
            if reference is None:
                unlearned = -(loss / tokens)
            else:
                with torch.no_grad():
                    known, _ = losses(reference, forget[start : start + batch_size])
                unlearned = -(2 / 0.1) * functional.logsigmoid(0.1 * (loss - known))
            kept, tokens = losses(trained, retain[start : start + batch_size])
            (unlearned.mean() + (kept / tokens).mean()).backward()
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
    trained.eval()


def bench_train(model: str, batch_size: int, steps: int) -> list[dict[str, Any]]:
    """One row for each method: its step against plain finetuning and against the plain way."""

    def measured(kind: str, name: str) -> dict[str, float]:
        return alone(timed, model, kind, name, batch_size, steps)

    sft = measured("sft", "")
    rows: list[dict[str, Any]] = []
    for name in METHODS:
        ours = measured("ours", name)
        plain = measured("plain", name) if name in PLAIN else None
        row = {
            "model": model,
            "method": name,
            "batch_size": batch_size,
            "seconds_per_step": round(ours["seconds"], 3),
            "times_two_batch_sft": round(ours["seconds"] / sft["seconds"], 2),
            "peak_mib": round(ours["memory"] / 2**20),
            "sft_peak_mib": round(sft["memory"] / 2**20),
        }
        if plain is not None:
            row["plain_seconds_per_step"] = round(plain["seconds"], 3)
            row["plain_peak_mib"] = round(plain["memory"] / 2**20)
            row["share_of_plain_peak"] = round(ours["memory"] / plain["memory"], 2)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows
