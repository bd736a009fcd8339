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
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from benchmarking.measure import NoTargets, alone, composed, untaught
from unierase.memory import peak_memory, reset_peak_memory

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


def measured(kind: str, model: str, name: str, batch_size: int, steps: int) -> tuple[float, int]:
    """Seconds a step (the median), and the peak of memory above that of the loaded model.

    kind: "sft", "ours" or "plain". Runs in a process of its own. Steps count from the end of the
    first one: what is done once, and the first passes, which take longer, do not count.
    """
    from torch.optim.optimizer import register_optimizer_step_post_hook

    import unierase.models.trainer  # noqa: F401  its code is no memory of a method

    case = _case(model, batch_size * (steps + 1))
    run = {"sft": _finetune, "ours": _unlearn, "plain": _plain}[kind]
    reset_peak_memory()
    before = peak_memory()
    ends: list[float] = []
    register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    run(case, model, name, batch_size)
    seconds = median(later - earlier for earlier, later in pairwise(ends))
    return seconds, peak_memory() - before


def _finetune(case: Case, model: str, name: str, batch_size: int) -> None:
    from unierase.models.finetune import finetune

    recipe = instantiate(composed(f"model={model}").model.finetune)
    recipe = replace(recipe, epochs=1, batch_size=2 * batch_size, train_on_questions=False, lr=1e-5)
    finetune(case.lm, [*case.request.forget, *case.request.retain], recipe, "sft")


def _unlearn(case: Case, model: str, name: str, batch_size: int) -> None:
    from unierase.request import Workbench

    base, _, lora = name.partition("+")
    overrides = ["+method/lora=default"] if lora else []
    method = instantiate(composed(f"model={model}", f"method={base}", *overrides).method)
    method = replace(method, epochs=1, batch_size=batch_size, lr=1e-5)
    with TemporaryDirectory() as folder:
        bench = Workbench(Path(folder) / "work", Path(folder) / "cache", NoTargets())
        method.unlearn(case.lm, case.request, {}, bench)


def _plain(case: Case, model: str, name: str, batch_size: int) -> None:
    """NPO + GD or GA + GD with a reference model and all logits."""
    import torch
    from torch.nn import functional

    from unierase.models.finetune import encode_rows

    lm, base = case.lm, name.partition("+")[0]
    reference = copy.deepcopy(lm.model) if base == "npo_gd" else None
    trained = lm.model
    if "+" in name:
        from baselines.lora import LoRA

        trained = LoRA(8, 16, 0.0).wrap(lm.model, 0)
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


def bench_train(
    model: str, batch_size: int, steps: int, methods: Sequence[str] = METHODS
) -> list[dict[str, Any]]:
    """One row for each of ``methods``: against plain finetuning and against the plain way."""

    def both(kind: str, name: str) -> tuple[float, int]:
        """Time and memory, of a process each: to see what is alive, memory is to go back to the
        system as soon as it is free, and that takes time."""
        seconds, _ = alone(measured, kind, model, name, batch_size, steps)
        _, memory = alone(measured, kind, model, name, batch_size, 1, returns_memory=True)
        return seconds, memory

    sft_seconds, sft_memory = both("sft", "")
    rows: list[dict[str, Any]] = []
    for name in methods:
        seconds, memory = both("ours", name)
        row = {
            "model": model,
            "method": name,
            "batch_size": batch_size,
            "seconds_per_step": round(seconds, 3),
            "times_two_batch_sft": round(seconds / sft_seconds, 2),
            "peak_mib": round(memory / 2**20),
            "sft_peak_mib": round(sft_memory / 2**20),
        }
        if name in PLAIN:
            plain_seconds, plain_memory = both("plain", name)
            row["share_of_plain_seconds"] = round(seconds / plain_seconds, 2)
            row["plain_peak_mib"] = round(plain_memory / 2**20)
            row["share_of_plain_peak"] = round(memory / plain_memory, 2)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows
