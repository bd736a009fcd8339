"""transformers' Trainer, told what an example is: a row's index, and when its loss is due."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, SequentialSampler
from tqdm.auto import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

STATE_FILE = "trainer_state.json"
"""Written last: a checkpoint without it was cut off."""

SummedLoss = Callable[[list[int], int], torch.Tensor]


class Items(Dataset):
    """The examples of all epochs in the order they are trained on, as (index, epoch).

    batches: of each epoch, the indices of each optimiser step. A step that is not full is filled
    up with -1, so that every step has the same number of items however they are dealt out.
    """

    def __init__(self, batches: Sequence[Sequence[Sequence[int]]], batch_size: int) -> None:
        self.items = [
            (index, epoch)
            for epoch, steps in enumerate(batches)
            for step in steps
            for index in [*step, *[-1] * (batch_size - len(step))]
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> tuple[int, int]:
        return self.items[position]


def collate(items: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
    """Indices that stand for examples, and their epoch; nothing but -1 is left out."""
    real = [index for index, _ in items if index >= 0]
    return {"index": torch.tensor(real, dtype=torch.long), "epoch": torch.tensor(items[0][1])}


class RowTrainer(Trainer):
    """Minimises the weighted mean of the examples' losses in each optimiser step.

    The mean is over the whole step: in how many forward passes, and on how many devices, its
    examples are dealt out changes nothing (to rounding).
    """

    optimizer: torch.optim.Optimizer | None
    lr_scheduler: Any

    def __init__(
        self,
        model: torch.nn.Module,
        arguments: TrainingArguments,
        items: Items,
        summed_loss: SummedLoss,
        weights: Sequence[float],
        learning_rate: Callable[[int], float],
        losses: StepLosses,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=items,
            data_collator=collate,
            callbacks=[losses, *callbacks],
        )
        self.remove_callback(PrinterCallback)
        self.summed_loss, self.weights, self.learning_rate = summed_loss, weights, learning_rate
        # The loss is divided by the step's weight below: the Trainer is not to scale it again.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self.losses = losses

    def _get_train_sampler(self, *arguments: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def create_optimizer(self, *arguments: Any) -> torch.optim.Optimizer:
        if self.optimizer is None:
            trained = [p for p in self.model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(
                trained, lr=self.args.learning_rate, weight_decay=self.args.weight_decay
            )
        return self.optimizer

    def create_scheduler(self, *arguments: Any, **named: Any) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer, self.learning_rate
            )
        return self.lr_scheduler

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor:
        weight = sum(self.weights[i] for batch in batch_samples for i in batch["index"].tolist())
        total = torch.tensor(float(weight), device=device, dtype=torch.float64)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        assert num_items_in_batch is not None
        indices = inputs["index"].tolist()
        if not indices:  # all of it filled up: nothing to learn, but every device takes part
            return sum(p.sum() for p in model.parameters() if p.requires_grad) * 0.0
        loss = self.summed_loss(indices, int(inputs["epoch"])) / float(num_items_in_batch)
        self.losses.loss += loss.item()
        return loss * self.args.world_size  # gradients are averaged over devices

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # it would be read off token ids, which are not here


class StepLosses(TrainerCallback):
    """Notes the loss of every step in the trainer's history, which checkpoints hold: a resumed
    training reports what an unbroken one would. Shows them in a bar."""

    def __init__(self, description: str) -> None:
        self.description = description
        self.bar: tqdm | None = None
        self.loss = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self.description, leave=False
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        state.log_history.append({"step": state.global_step, "loss": self.loss})
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix(loss=f"{self.loss:.3f}", refresh=False)
        self.loss = 0.0

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()


class SaveBySeconds(TrainerCallback):
    """Asks for a checkpoint when so much time has gone: short trainings make none."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if time.monotonic() - self.last >= self.seconds:
            control.should_save = True
            self.last = time.monotonic()


def last_checkpoint(folder: Path) -> Path | None:
    """The latest whole checkpoint in ``folder``; those cut off are deleted."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if (path / STATE_FILE).is_file():
            whole.append(path)
        else:
            shutil.rmtree(path)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
