"""The training loop, finetuning and the loss-based methods."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baselines.lora import LoRA
from baselines.objectives import (
    DPO,
    NPO,
    GradientAscent,
    MaximumEntropy,
    RefusalTuning,
    SimNPO,
)
from baselines.regularisers import AnswerPreservation, GradientDescent, KLToReference
from baselines.token_objectives import (
    CrossEntropyUnlearning,
    SaturationImportance,
    SelfDistillation,
    WeightedGradientAscent,
)
from baselines.training import LossUnlearning, _without_adapter
from unierase.errors import UserError
from unierase.experiment.tracking import Example, WandbTracker, _WandbRun
from unierase.models import training
from unierase.models.finetune import FinetuneRecipe, finetune
from unierase.models.language_model import LanguageModel
from unierase.models.training import answer_logits, picked, token_log_probabilities
from unierase.refusals import refusal_for
from unierase.request import UnlearningRequest, Workbench
from unierase.rows import Row
from unierase.scoring.likelihood import answer_log_probabilities

REFUSALS = ("I do not know.", "That is unknown to me.")


def recipe(micro: int | None = None, questions: bool = False) -> FinetuneRecipe:
    return FinetuneRecipe(3, 1e-2, 4, micro, 0.01, 0.1, 128, questions, 0)


def method(forget: object, retain: object, **changes: object) -> LossUnlearning:
    settings = {
        "name": "test",
        "forget_coeff": 1.0,
        "retain_coeff": 1.0,
        "lr": 3e-3,
        "epochs": 3,
        "batch_size": 2,
        "micro_batch_size": None,
        "weight_decay": 0.0,
        "warmup_ratio": 0.1,
        "max_length": 128,
    }
    return LossUnlearning(forget=forget, retain=retain, **{**settings, **changes})  # type: ignore[arg-type]


def losses(lm: LanguageModel, rows: list[Row]) -> list[float]:
    values = answer_log_probabilities(lm, [(row.question, row.answer) for row in rows])
    return [float(-v.mean()) for v in values]


def test_training_and_scoring_see_the_same_log_probabilities(
    lm: LanguageModel, rows: list[Row]
) -> None:
    prompts = [lm.encode_prompt(row.question).ids for row in rows]
    answers = [lm.encode_answer(row.answer) for row in rows]
    values, mask = token_log_probabilities(lm, prompts, answers)
    scored = answer_log_probabilities(lm, [(row.question, row.answer) for row in rows])
    for row, keep, expected in zip(values, mask.bool(), scored, strict=True):
        torch.testing.assert_close(row[keep].detach(), torch.tensor(expected), atol=1e-5, rtol=0)


def test_picked_log_probabilities_are_cross_entropies() -> None:
    """Values and gradients, with less memory."""
    logits = torch.randn(3, 4, 7, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(7, (3, 4))
    assert torch.autograd.gradcheck(lambda x: picked(x, targets), logits)
    expected = -torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none"
    ).view(3, 4)
    torch.testing.assert_close(picked(logits, targets), expected)


def test_finetuning_teaches(lm: LanguageModel, rows: list[Row]) -> None:
    before = losses(lm, rows)
    report = finetune(lm, rows, recipe(), "test")
    assert report["steps"] == 6  # 3 epochs of 2 batches
    assert all(a < b for a, b in zip(losses(lm, rows), before, strict=True))
    assert not lm.model.training


def test_micro_batches_give_the_same_trajectory(lm: LanguageModel, rows: list[Row]) -> None:
    other = copy.deepcopy(lm)
    finetune(lm, rows, recipe(), "test")
    finetune(other, rows, recipe(micro=1), "test")
    assert losses(lm, rows) == pytest.approx(losses(other, rows), abs=1e-4)


def test_computing_activations_again_gives_the_same_weights(
    lm: LanguageModel, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    enable = lm.model.gradient_checkpointing_enable

    def noted(model: object, settings: dict[str, bool]) -> None:
        asked.append(settings)
        enable(settings)

    monkeypatch.setattr(type(lm.model), "gradient_checkpointing_enable", noted)
    plain, again = copy.deepcopy(lm), lm
    finetune(plain, rows, recipe(), "test")
    finetune(again, rows, replace(recipe(), gradient_checkpointing=True), "test")
    assert asked == [{"use_reentrant": False}]
    for a, b in zip(plain.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_bfloat16_trains_weights_of_their_own_type(lm: LanguageModel, rows: list[Row]) -> None:
    plain = copy.deepcopy(lm)
    full = finetune(plain, rows, recipe(), "test")
    half = finetune(lm, rows, replace(recipe(), bf16=True), "test")
    assert half["final_loss"] != full["final_loss"]
    assert half["final_loss"] == pytest.approx(full["final_loss"], rel=0.05)
    assert {p.dtype for p in lm.model.parameters()} == {torch.float32}


def test_what_changes_no_result_is_in_no_cache_key() -> None:
    plain = recipe().identity()
    assert "bf16" not in plain
    assert replace(recipe(), gradient_checkpointing=True).identity() == plain
    assert replace(recipe(), bf16=True).identity() != plain


def test_same_seed_same_weights(lm: LanguageModel, rows: list[Row]) -> None:
    other = copy.deepcopy(lm)
    finetune(lm, rows, recipe(questions=True), "test")
    torch.rand(3)  # what else draws must not matter
    finetune(other, rows, recipe(questions=True), "test")
    for a, b in zip(lm.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("forget", "retain"),
    [
        (GradientAscent(), GradientDescent()),
        (GradientAscent(), KLToReference()),
        (GradientAscent(), None),
        (NPO(), GradientDescent()),
        (SimNPO(), GradientDescent()),
        (DPO(), KLToReference(on_prompt=True)),
        (MaximumEntropy(), GradientDescent()),
        (WeightedGradientAscent(), GradientDescent()),
        (SaturationImportance(beta1=1.0), GradientDescent()),
        (CrossEntropyUnlearning(), GradientDescent()),
        (SelfDistillation(), GradientDescent()),
    ],
)
def test_unlearning_raises_the_loss_of_forget_rows(
    lm: LanguageModel, rows: list[Row], bench: Workbench, forget: object, retain: object
) -> None:
    # Weights by probability need answers that the model knows.
    finetune(lm, rows, replace(recipe(), epochs=60), "test")
    before = losses(lm, rows)
    request = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), REFUSALS, 1, 0)
    out = method(forget, retain).unlearn(lm, request, {}, bench)
    after = losses(out.lm, rows)
    assert all(a > b for a, b in zip(after[:2], before[:2], strict=True))
    if retain is not None:
        assert sum(after[2:]) / 3 < sum(after[:2]) / 2
    assert out.report["steps"] == 3
    parameters = sum(p.numel() for p in out.lm.model.parameters())
    # Weights, gradients, two moments; who compares distributions keeps a copy of the weights.
    held = 4 + (isinstance(retain, KLToReference) or isinstance(forget, SelfDistillation))
    assert out.report["trained_parameters"] == parameters
    assert out.report["expected_bytes"] == held * parameters * 4


def test_reference_distributions_are_those_before_unlearning(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    """At the first step the model is its own reference: KL is 0. Later it is not."""
    request = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), REFUSALS, 1, 0)
    for epochs, expected in ((1, True), (3, False)):
        ascent = method(GradientAscent(), KLToReference(), forget_coeff=1e-9, epochs=epochs)
        kl = ascent.unlearn(copy.deepcopy(lm), request, {}, bench).report["final_loss"]
        assert (abs(kl) < 1e-6) == expected


def test_refusals_become_likely(lm: LanguageModel, rows: list[Row], bench: Workbench) -> None:
    finetune(lm, rows, recipe(), "test")
    refused = [Row(r.id, r.question, refusal_for(r.question, REFUSALS, 0), r.group) for r in rows]
    before = losses(lm, refused[:2])
    request = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), REFUSALS, 1, 0)
    method(RefusalTuning(), AnswerPreservation()).unlearn(lm, request, {}, bench)
    assert all(a < b for a, b in zip(losses(lm, refused[:2]), before, strict=True))


def test_micro_batches_do_not_change_unlearning(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    other = copy.deepcopy(lm)
    request = UnlearningRequest(tuple(rows[:4]), tuple(rows[4:]), REFUSALS, 1, 0)
    for model, micro in ((lm, None), (other, 1)):
        dpo = method(DPO(), KLToReference(), batch_size=4, micro_batch_size=micro)
        dpo.unlearn(model, request, {}, bench)
    assert losses(lm, rows) == pytest.approx(losses(other, rows), abs=1e-4)


def test_a_refusal_needs_refusals(lm: LanguageModel, rows: list[Row], bench: Workbench) -> None:
    request = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), (), 1, 0)
    with pytest.raises(UserError, match="method=test: it needs refusals"):
        method(RefusalTuning(), None).unlearn(lm, request, {}, bench)


def test_a_regulariser_needs_retain_rows(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    request = UnlearningRequest(tuple(rows), (), (), 1, 0)
    with pytest.raises(UserError, match="needs retain rows"):
        method(GradientAscent(), GradientDescent()).unlearn(lm, request, {}, bench)


class _Killed(BaseException):
    pass


def test_a_killed_training_goes_on_to_the_same_result(
    lm: LanguageModel, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole, killed = copy.deepcopy(lm), copy.deepcopy(lm)
    unbroken = finetune(whole, rows, recipe(), "test", tmp_path / "whole")
    calls = []

    def until_killed(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise _Killed
        return token_log_probabilities(*arguments)  # type: ignore[arg-type]

    work = tmp_path / "work"
    monkeypatch.setattr("unierase.models.finetune.token_log_probabilities", until_killed)
    with pytest.raises(_Killed):
        finetune(killed, rows, recipe(), "test", work)
    assert {path.name for path in work.iterdir()} == {"checkpoint-4"}
    # A later one that was cut off while it was written does not count.
    (work / "checkpoint-5").mkdir()
    (work / "checkpoint-5" / "model.safetensors").write_bytes(b"half")
    resumed = finetune(lm, rows, recipe(), "test", work)
    assert len(calls) == 5 + 2  # of six steps four were kept
    assert resumed == unbroken
    for a, b in zip(lm.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_short_training_writes_no_checkpoint(
    lm: LanguageModel, rows: list[Row], tmp_path: Path
) -> None:
    finetune(lm, rows, recipe(), "test", tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


def test_micro_batches_must_divide_a_step(lm: LanguageModel, rows: list[Row]) -> None:
    with pytest.raises(UserError, match="micro_batch_size=3: must divide batch_size=4"):
        finetune(lm, rows, recipe(micro=3), "test")


def test_adapters_are_trained_alone_and_merged(
    lm: LanguageModel, rows: list[Row], bench: Workbench
) -> None:
    finetune(lm, rows, replace(recipe(), epochs=60), "test")
    before, original = losses(lm, rows), copy.deepcopy(lm.model)
    request = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), REFUSALS, 1, 0)
    unlearning = method(GradientAscent(), KLToReference(), lora=LoRA(rank=2), epochs=6, lr=2e-2)
    out = unlearning.unlearn(copy.deepcopy(lm), request, {}, bench)
    after = losses(out.lm, rows)
    assert all(a > b for a, b in zip(after[:2], before[:2], strict=True))
    names = dict(out.lm.model.named_parameters())
    assert names.keys() == dict(original.named_parameters()).keys()  # an ordinary model again
    assert all(p.requires_grad for p in names.values())
    changed = {n for n, p in original.named_parameters() if not torch.equal(p, names[n])}
    assert changed and all("proj" in name for name in changed)
    # 3 layers: four of 32 x 32, two of 32 -> 64, one of 64 -> 32, at rank 2.
    assert LoRA(rank=2).parameters(original) == 3 * 2 * (4 * 64 + 3 * 96)
    assert "M trained" in str(unlearning.cost(original, request))
    with pytest.raises(UserError, match=r"method\.lora\.rank=0"):
        LoRA(rank=0)


def test_without_its_adapter_the_model_is_what_it_was(lm: LanguageModel, rows: list[Row]) -> None:
    prompts = [lm.encode_prompt(row.question).ids for row in rows]
    answers = [lm.encode_answer(row.answer) for row in rows]
    with torch.no_grad():
        before = answer_logits(lm, prompts, answers)[0]
        adapted = replace(lm, model=LoRA().wrap(lm.model, 0))
        for name, parameter in adapted.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
        assert not torch.allclose(answer_logits(adapted, prompts, answers)[0], before)
        assert torch.equal(_without_adapter(adapted, prompts, answers), before)


def test_steps_reach_weights_and_biases_through_the_trainer(
    lm: LanguageModel, rows: list[Row], bench: Workbench, tmp_path: Path
) -> None:
    request = UnlearningRequest(tuple(rows[:2]), tuple(rows[2:]), REFUSALS, 1, 0)
    tracked = WandbTracker("test", "offline").start({"seed": 0}, tmp_path, "name", "group", "key")
    assert isinstance(tracked, _WandbRun)
    noted = replace(bench, report_to=tracked.report_to)
    report = method(GradientAscent(), None).unlearn(lm, request, {}, noted).report
    assert tracked.run.summary["train/loss"] == pytest.approx(report["final_loss"], rel=1e-3)
    assert tracked.run.summary["train/global_step"] == report["steps"]
    tracked.log({"sets": {"forget": {"rouge": 0.5}}}, 1)
    assert tracked.run.summary["sets/forget/rouge"] == 0.5
    assert tracked.run.id == "key" and tracked.run.group == "group"
    tracked.log_examples([Example("forget", "Where?", "Rome", "Rome", "No idea.")])
    assert tracked.run.summary["examples"]["nrows"] == 1
    tracked.finish("finished")
