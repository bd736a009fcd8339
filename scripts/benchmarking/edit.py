"""UniErase's edit against the plain way.

The plain way takes one fact at a time, runs every pass over the whole prompt through all layers,
and solves the dense d_k x d_k system.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from benchmarking.measure import alone, composed, untaught
from unierase.memory import peak_memory

if TYPE_CHECKING:
    import torch

    from unierase.editing.method import UniErase
    from unierase.editing.projector import NullSpaceProjector
    from unierase.editing.prompts import EditPrompt
    from unierase.models.language_model import LanguageModel
    from unierase.rows import Row

FEW_STEPS = 5
"""Steps after which the two ways' updates are compared. With the large steps that small models
need, each of the others multiplies what rounding made different: on smollm2-135m 2e-14 after 5
steps in float64 is 4e-6 after 40, and 7e-4 in float32 is 8e-2."""


@dataclass(frozen=True)
class EditCase:
    """An edit to be timed: everything but the edit itself is there."""

    lm: LanguageModel
    method: UniErase
    rows: tuple[Row, ...]
    prompts: list[EditPrompt]
    layers: tuple[int, ...]
    projectors: list[NullSpaceProjector]
    token: int


def edit_case(model: str, data: str, facts: int, steps: int | None) -> EditCase:
    """``facts`` rows of the data on an untaught model: weights do not change speed.

    steps: of the target values; None: as many as the method takes.
    """
    import torch

    from unierase.editing.keys import key_covariances
    from unierase.editing.projector import NullSpaceProjector
    from unierase.editing.prompts import fact_prompts
    from unierase.editing.token import add_unlearning_tokens

    lm, everything = untaught(model, data)
    method: UniErase = instantiate(composed(f"model={model}").method)
    if steps is not None:
        method = replace(method, values=replace(method.values, steps=steps))
    (token,) = add_unlearning_tokens(lm, 1)
    rows, kept = everything.full[:facts], everything.full[-40:]
    sequences = [lm.encode_prompt(row.question).ids for row in kept]
    layers = tuple(method.layers)
    covariances = key_covariances(lm, sequences, layers)
    # Half of the directions, whatever the scale of an untaught model's keys.
    projectors = [
        NullSpaceProjector.of(c, float(torch.linalg.eigvalsh(c)[len(c) // 2])) for c in covariances
    ]
    prompts = fact_prompts(lm, rows, method.fact_token)
    return EditCase(lm, method, rows, prompts, layers, projectors, token)


def our_edit(case: EditCase) -> list[torch.Tensor]:
    """The updates of all layers, (d_h, d_k) each, by the library."""

    from unierase.editing.closed_form import KeyResiduals, edit_update
    from unierase.editing.keys import activations_at_edit
    from unierase.editing.values import find_target_values

    values = find_target_values(
        case.lm,
        case.rows,
        case.prompts,
        [(case.token,)] * len(case.rows),
        case.layers[-1],
        case.method.values,
    ).values

    def update(layer: int, projector: NullSpaceProjector, share: int) -> torch.Tensor:
        (keys,), hidden = activations_at_edit(
            case.lm, case.prompts, [layer], case.layers[-1], len(case.rows)
        )
        assert hidden is not None
        missing = (values - hidden) / share
        wanted = [KeyResiduals(keys.double(), missing.double())]
        return edit_update(wanted, projector, case.method.l2)

    return _layer_by_layer(case, update)


def plain_edit(case: EditCase) -> list[torch.Tensor]:
    """The same, one fact at a time, whole passes, dense solves."""
    import torch

    from unierase.models.layers import decoder_layers, down_projection

    lm, settings = case.lm, case.method.values
    top = decoder_layers(lm.model)[case.layers[-1]]
    lm.model.requires_grad_(False)

    def whole_pass(prompt: EditPrompt, delta: torch.Tensor | None) -> tuple[Any, torch.Tensor]:
        seen: list[torch.Tensor] = []

        def add(module: object, inputs: object, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            seen.append(hidden[0, prompt.position].detach().clone())
            if delta is None:
                return output
            hidden = hidden.clone()
            hidden[0, prompt.position] += delta
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = top.register_forward_hook(add)
        logits = lm.model(torch.tensor([prompt.ids], device=lm.device)).logits[0, -1].float()
        handle.remove()
        return logits, seen[0]

    def value(row: Row, prompt: EditPrompt) -> torch.Tensor:
        from unierase.editing.values import subject_prompts

        about = subject_prompts(lm, [row]) if settings.kl else []
        _, hidden = whole_pass(prompt, None)
        general = [whole_pass(p, None)[0].log_softmax(-1).detach() for p in about]
        delta = torch.zeros_like(hidden, requires_grad=True)
        optimiser = torch.optim.Adam([delta], lr=settings.lr)
        for _ in range(settings.steps):
            loss = -whole_pass(prompt, delta)[0].log_softmax(-1)[case.token]
            for p, before in zip(about, general, strict=True):
                now = whole_pass(p, delta)[0].log_softmax(-1)
                loss = loss + settings.kl * (now.exp() * (now - before)).sum()
            loss = loss + settings.weight_decay * delta.norm() / hidden.norm() ** 2
            if loss < settings.stop_loss:
                break
            optimiser.zero_grad()
            loss.backward()
            assert delta.grad is not None
            delta.grad = torch.nan_to_num(delta.grad)
            optimiser.step()
            with torch.no_grad():
                bound = settings.clamp * hidden.norm() / delta.norm().clamp(min=1e-12)
                delta.mul_(bound.clamp(max=1.0))
        return hidden + delta.detach()

    values = torch.stack([value(r, p) for r, p in zip(case.rows, case.prompts, strict=True)], dim=1)

    @torch.no_grad()
    def update(layer: int, projector: NullSpaceProjector, share: int) -> torch.Tensor:
        keys, states = [], []
        for prompt in case.prompts:
            seen: list[torch.Tensor] = []
            handle = down_projection(lm.model, layer).register_forward_pre_hook(
                lambda module, inputs, seen=seen: seen.append(inputs[0])
            )
            states.append(whole_pass(prompt, None)[1])
            handle.remove()
            keys.append(seen[0][0, prompt.position])
        k = torch.stack(keys, dim=1).double().cpu()
        missing = (values - torch.stack(states, dim=1)).double().cpu() / share
        p = projector.dense().double()
        system = p @ k @ k.T + case.method.l2 * torch.eye(len(k), dtype=torch.double)
        return torch.linalg.solve(system, p @ k @ missing.T).T

    return _layer_by_layer(case, update)


def _layer_by_layer(
    case: EditCase, update: Callable[[int, NullSpaceProjector, int], torch.Tensor]
) -> list[torch.Tensor]:
    """Every layer's update on the weights changed so far; afterwards the weights are as before."""
    import torch

    from unierase.models.layers import down_projection, oriented

    updates, before = [], []
    for i, (layer, projector) in enumerate(zip(case.layers, case.projectors, strict=True)):
        found = update(layer, projector, len(case.layers) - i)
        weight = oriented(down_projection(case.lm.model, layer))
        before.append(weight.detach().clone())
        with torch.no_grad():
            weight.copy_((weight.double().cpu() + found).to(weight))
        updates.append(found)
    with torch.no_grad():
        for layer, old in zip(case.layers, before, strict=True):
            oriented(down_projection(case.lm.model, layer)).copy_(old)
    return updates


def timed_edit(
    model: str, data: str, facts: int, plain: bool, steps: int | None = None
) -> dict[str, Any]:
    """Seconds, the peak memory the edit added, and the updates. Runs in a process of its own."""
    import torch

    case = edit_case(model, data, facts, steps)
    start_memory, start = peak_memory(), time.perf_counter()
    updates = plain_edit(case) if plain else our_edit(case)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "memory": peak_memory() - start_memory,
        "updates": [update.numpy() for update in updates],
    }


def _difference(ours: Mapping[str, Any], plain: Mapping[str, Any]) -> float:
    """|ours - plain| / |plain| of the layer where it is largest, to two digits."""
    import numpy as np

    pairs = zip(ours["updates"], plain["updates"], strict=True)
    return float(f"{max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs):.1e}")


def bench_edit(model: str, data: str, counts: Sequence[int], plain: int) -> list[dict[str, Any]]:
    """One row of results for each number of facts."""
    rows: list[dict[str, Any]] = []
    for facts in counts:
        ours = alone(timed_edit, model, data, facts, False)
        some = min(facts, plain)
        same = ours if some == facts else alone(timed_edit, model, data, some, False)
        slow = alone(timed_edit, model, data, some, True)
        few = [alone(timed_edit, model, data, some, way, FEW_STEPS) for way in (False, True)]
        estimate = slow["seconds"] / some * facts
        rows.append(
            {
                "model": model,
                "data": data,
                "facts": facts,
                "seconds": round(ours["seconds"], 3),
                "seconds_per_fact": round(ours["seconds"] / facts, 4),
                "peak_mib": round(ours["memory"] / 2**20, 1),
                "plain_facts": some,
                "plain_seconds_per_fact": round(slow["seconds"] / some, 3),
                "plain_peak_mib": round(slow["memory"] / 2**20, 1),
                "times_faster": round(estimate / ours["seconds"], 1),
                f"relative_difference_{FEW_STEPS}_steps": _difference(*few),
                "relative_difference": _difference(same, slow),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows
