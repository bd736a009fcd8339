"""One training loop for finetuning and for every loss-based method."""

from __future__ import annotations

import gc
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from unierase.errors import UserError
from unierase.scoring.batching import left_pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel

SECONDS_BETWEEN_CHECKPOINTS = 300.0
BUCKET = 8
"""Batches are cut from groups of this many batches, sorted by length: less padding."""


@dataclass(frozen=True)
class Schedule:
    """AdamW with linear warm-up and linear decay.

    batch_size: examples in one optimiser step, however they are split.
    micro_batch_size: examples in one forward pass; None: the whole batch. Changes memory, not the
        trajectory (to rounding).
    warmup_ratio: share of all steps with rising learning rate.
    bf16: forward and backward passes in bfloat16, weights and optimiser in their own type.
    gradient_checkpointing: activations are computed again for the backward pass: less memory,
        more time, the same result (to rounding).
    """

    epochs: int
    lr: float
    batch_size: int
    micro_batch_size: int | None
    weight_decay: float
    warmup_ratio: float
    bf16: bool = field(default=False, kw_only=True)
    gradient_checkpointing: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size)):
            if value < 1:
                raise UserError(f"{name}={value}: must be at least 1")
        if self.lr <= 0:
            raise UserError(f"lr={self.lr}: must be above 0")

    def steps(self, examples: int) -> int:
        """Optimiser steps for this many examples."""
        return self.epochs * -(-examples // self.batch_size)

    def rate(self, step: int, total: int) -> float:
        """The share of ``lr`` that step number ``step`` (from 0) of ``total`` takes."""
        warmup = max(1, round(self.warmup_ratio * total))
        return min(1.0, (step + 1) / warmup, 1.0 - step / total)


def epoch_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Shuffled batches of similar length; a function of its arguments alone."""
    draw = random.Random(f"{seed}:{epoch}")
    order = list(range(len(lengths)))
    draw.shuffle(order)
    group = BUCKET * batch_size
    grouped = [
        index
        for start in range(0, len(order), group)
        for index in sorted(order[start : start + group], key=lambda i: lengths[i])
    ]
    batches = [grouped[i : i + batch_size] for i in range(0, len(grouped), batch_size)]
    draw.shuffle(batches)
    return batches


def train(
    model: PreTrainedModel,
    lengths: Sequence[int],
    weights: Sequence[float],
    terms: Sequence[Callable[[list[int], int], torch.Tensor]],
    schedule: Schedule,
    seed: int,
    description: str,
    work_dir: Path | None = None,
    report_to: Sequence[str] = (),
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Minimise the weighted mean of the examples' losses, step by step.

    lengths: tokens of every example. weights: what every example counts in its step's mean (its
    number of answer tokens for a mean over tokens, 1 for a mean over examples).
    terms: the loss is their sum; each gives its own over some examples, by index, in an epoch.
    work_dir: where checkpoints go; a training that was killed goes on from the last one there, to
    the same result. report_to: where transformers' Trainer reports its steps.
    Returns the model in evaluation mode (``model`` itself, unless processes share its weights),
    steps and the mean loss of the last epoch.
    """
    from transformers import TrainingArguments

    from unierase.models.trainer import (
        STEP_LOSS,
        Items,
        RowTrainer,
        SaveBySeconds,
        StepLosses,
        last_checkpoint,
        structure_of,
    )

    batches = [
        epoch_batches(lengths, schedule.batch_size, seed, epoch) for epoch in range(schedule.epochs)
    ]
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    share, rest = divmod(schedule.batch_size, devices)
    micro = schedule.micro_batch_size or share
    if rest or share % micro:
        among = "" if devices == 1 else f" dealt out to {devices} processes"
        raise UserError(
            f"micro_batch_size={micro}: must divide batch_size={schedule.batch_size}{among}"
        )
    total = schedule.steps(len(lengths))
    with tempfile.TemporaryDirectory() as unused:
        arguments = TrainingArguments(
            output_dir=str(work_dir or unused),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=share // micro,
            num_train_epochs=1,  # ``Items`` holds them all
            learning_rate=schedule.lr,
            weight_decay=schedule.weight_decay,
            max_grad_norm=1.0,
            bf16=schedule.bf16,
            seed=seed,
            use_cpu=model.device.type == "cpu",
            ddp_find_unused_parameters=False,
            save_strategy="no",
            save_total_limit=1,
            logging_strategy="steps" if report_to else "no",
            logging_steps=1,
            report_to=list(report_to),
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        # Of several GPUs that one process sees it takes one: sharing is what ``parallel`` is for.
        arguments._n_gpu = min(1, arguments.n_gpu)
        trainer = RowTrainer(
            model,
            terms,
            arguments,
            Items(batches, schedule.batch_size),
            weights,
            lambda step: schedule.rate(step, total),
            StepLosses(description),
            [] if work_dir is None else [SaveBySeconds(SECONDS_BETWEEN_CHECKPOINTS)],
        )
        checkpoint = None if work_dir is None else last_checkpoint(work_dir)
        if schedule.gradient_checkpointing:
            # By hand: the Trainer's own switch changes its name between versions.
            model.gradient_checkpointing_enable({"use_reentrant": False})
        structure = structure_of(model) if trainer.shares_weights else None
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if structure is not None:
            model = trainer.gathered(structure)
    if schedule.gradient_checkpointing:
        model.gradient_checkpointing_disable()
    model.eval()
    losses = [entry[STEP_LOSS] for entry in trainer.state.log_history if STEP_LOSS in entry]
    del trainer, structure
    gc.collect()  # the Trainer refers to itself: Adam's moments would stay in memory with it
    last = losses[-len(batches[-1]) :]
    return model, {"steps": float(len(losses)), "final_loss": sum(last) / len(last)}


def answer_mask(answers: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """1 at the tokens of answers that end together, (rows, longest answer), float32."""
    lengths = torch.tensor([len(answer) for answer in answers], device=device)
    longest = max(len(answer) for answer in answers)
    return (torch.arange(longest, 0, -1, device=device) <= lengths.unsqueeze(1)).float()


def answer_logits(
    lm: LanguageModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    model: torch.nn.Module | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits that predict the answers' tokens, with gradient, the tokens, the mask of real ones.

    (rows, longest answer, vocabulary) in float32 and twice (rows, longest answer); answers end
    together, padding is on the left. model: another one with the same tokenizer.
    """
    rows = [(*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
    inputs = left_pad(rows, lm.pad_id, lm.device)
    width, longest = inputs["input_ids"].shape[1], max(len(answer) for answer in answers)
    places = torch.arange(width - longest - 1, width - 1, device=lm.device)
    run = lm.model if model is None else model
    logits = run(**inputs, use_cache=False, logits_to_keep=places).logits
    return logits.float(), inputs["input_ids"][:, -longest:], answer_mask(answers, lm.device)


def token_log_probabilities(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of every answer token, with gradient, 0 at padding, and the mask.

    Both (rows, longest answer), float32.
    """
    logits, targets, mask = answer_logits(lm, prompts, answers)
    return picked(logits, targets) * mask, mask


def picked(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log softmax of ``logits`` at ``targets``: (..., vocabulary) and (...) -> (...)."""
    values: torch.Tensor = _Picked.apply(logits, targets)
    return values


class _Picked(torch.autograd.Function):
    """As cross-entropy, which holds log softmax and two matrices of gradients beside the logits:
    over a large vocabulary they are most of a step's memory. Here it is one."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = logits.logsumexp(-1)
        ctx.save_for_backward(logits, targets, total)
        return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets, total = ctx.saved_tensors
        gradient = gradient.unsqueeze(-1)
        result = (logits - total.unsqueeze(-1)).exp_().mul_(-gradient)
        return result.scatter_add_(-1, targets.unsqueeze(-1), gradient), None
