"""RMU and task arithmetic."""

from __future__ import annotations

import copy

import pytest
import torch

from baselines.rmu import RMU, _at_answers, _distance, _unit_vector
from baselines.task_vector import TaskVector
from unierase.errors import UserError
from unierase.models.finetune import FinetuneRecipe, encode_rows
from unierase.models.language_model import LanguageModel
from unierase.models.layers import hidden_states
from unierase.request import UnlearningRequest, Workbench
from unierase.rows import Row
from unierase.scoring.batching import left_pad


def rmu(**changes: object) -> RMU:
    settings = {
        "name": "rmu",
        "layer": 1,
        "steering": 3.0,
        "alpha": 1.0,
        "lr": 1e-2,
        "epochs": 20,
        "batch_size": 2,
        "micro_batch_size": None,
        "weight_decay": 0.0,
        "warmup_ratio": 0.1,
        "max_length": 128,
    }
    return RMU(**{**settings, **changes})  # type: ignore[arg-type]


def request(rows: list[Row]) -> UnlearningRequest:
    return UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), (), 1, 0)


def test_distance_by_hand() -> None:
    hidden = torch.tensor([[[9.0, 9.0], [1.0, 3.0]], [[0.0, 2.0], [2.0, 2.0]]])
    mask = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    # Row 1: (1 + 9) / 2 at its one token. Row 2: (0 + 4) / 2 = 2 and (4 + 4) / 2 = 4.
    assert _distance(hidden, torch.zeros(2, 2, 2), mask).tolist() == [5.0, 3.0]


def test_hidden_states_stop_at_the_layer(lm: LanguageModel, rows: list[Row]) -> None:
    inputs = left_pad([lm.encode_prompt(row.question).ids for row in rows], 0, lm.device)
    whole = lm.model(**inputs, output_hidden_states=True).hidden_states
    ran = []
    handle = lm.model.model.layers[2].register_forward_hook(lambda *_: ran.append(1))
    found = hidden_states(lm.model, inputs, 1)
    handle.remove()
    torch.testing.assert_close(found, whole[2])
    assert found.requires_grad and not ran


def test_forget_rows_are_steered_and_retain_rows_stay(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    forget, retain = encode_rows(lm, rows[:2], 128), encode_rows(lm, rows[2:], 128)
    target = 3.0 * _unit_vector(lm, 0)

    def distances(model: LanguageModel) -> tuple[float, float]:
        with torch.no_grad():
            hidden, mask = _at_answers(model, forget, 1)
            steered = _distance(hidden, target.expand_as(hidden), mask).mean()
            hidden, mask = _at_answers(model, retain, 1)
            original, _ = _at_answers(before, retain, 1)
            return float(steered), float(_distance(hidden, original, mask).mean())

    before = copy.deepcopy(lm)
    start, _ = distances(lm)
    loose = rmu(alpha=0.0).unlearn(copy.deepcopy(lm), request(rows), {}, bench).lm
    out = rmu(alpha=300.0).unlearn(lm, request(rows), {}, bench)
    steered, moved = distances(out.lm)
    assert steered < start and out.report["steered_layer"] == 1
    assert moved < 0.5 * distances(loose)[1]
    changed = {
        name
        for (name, a), (_, b) in zip(
            before.model.named_parameters(), out.lm.model.named_parameters(), strict=True
        )
        if not torch.equal(a, b)
    }
    assert changed == {f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)}
    assert all(p.requires_grad for p in out.lm.model.parameters())


def test_rows_count_alike_whatever_the_micro_batch(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    other = copy.deepcopy(lm)
    rmu(epochs=2).unlearn(lm, request(rows), {}, bench)
    rmu(epochs=2, micro_batch_size=1).unlearn(other, request(rows), {}, bench)
    for a, b in zip(lm.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_the_layer_scales_with_depth_and_is_checked(lm: LanguageModel) -> None:
    assert rmu(layer=None)._steered(lm.model) == 1  # round(7 * 3 / 32)
    with pytest.raises(UserError, match=r"9 is out of range"):
        rmu(layer=9).check(lm.model)


def test_a_task_vector_is_subtracted(lm: LanguageModel, rows: list[Row], bench: Workbench) -> None:
    recipe = FinetuneRecipe(2, 1e-3, 4, None, 0.0, 0.1, 128, False, 7)
    before, taught = copy.deepcopy(lm), copy.deepcopy(lm)
    TaskVector("task_vector", -1.0, recipe).unlearn(taught, request(rows), {}, bench)
    TaskVector("task_vector", 2.0, recipe).unlearn(lm, request(rows), {}, bench)
    moved = 0.0
    for old, forward, back in zip(
        before.model.parameters(), taught.model.parameters(), lm.model.parameters(), strict=True
    ):
        torch.testing.assert_close(back, old - 2 * (forward - old), atol=1e-6, rtol=1e-4)
        moved += float((back - old).detach().norm())
    assert moved > 0
