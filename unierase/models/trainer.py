"""transformers' Trainer, told what an example is: a row's index, and when its loss is due."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset, SequentialSampler
from tqdm.auto import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

STATE_FILE = "trainer_state.json"
"""Written last: a checkpoint without it was cut off."""
WEIGHTS_FILE = "model.safetensors"
STEP_LOSS = "step_loss"
"""Our entries in the trainer's history; it has some of its own where it reports to others."""

SummedLoss = Callable[[list[int], int], torch.Tensor]
"""The sum of one term of the loss over some examples, given by index, in an epoch."""


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


class RowLosses(nn.Module):
    """A model and the terms of its loss as one module: what DDP, FSDP and DeepSpeed wrap. Every
    pass a term makes through the model, of whatever rows, is inside a forward pass they know of."""

    def __init__(self, model: nn.Module, terms: Sequence[SummedLoss]) -> None:
        super().__init__()
        self.model, self.terms = model, terms
        self._no_split_modules = getattr(model, "_no_split_modules", None)  # FSDP's units
        self._keys_to_ignore_on_save = None  # the Trainer asks when it loads a checkpoint

    def forward(self, chosen: slice, indices: list[int], epoch: int) -> torch.Tensor:
        # Nothing to learn, but a device that took no part would leave the others waiting.
        losses = [term(indices or [0], epoch) for term in self.terms[chosen]]
        loss = torch.stack(losses).sum()
        return loss if indices else 0.0 * loss


class RowTrainer(Trainer):
    """Minimises the weighted mean of the examples' losses in each optimiser step.

    The mean is over the whole step: in how many forward passes, and on how many devices, its
    examples are dealt out changes nothing (to rounding). Each term is taken back through the
    model before the next one runs: the memory is that of one.
    """

    optimizer: torch.optim.Optimizer | None
    lr_scheduler: Any

    def __init__(
        self,
        model: nn.Module,
        terms: Sequence[SummedLoss],
        arguments: TrainingArguments,
        items: Items,
        weights: Sequence[float],
        learning_rate: Callable[[int], float],
        losses: StepLosses,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        super().__init__(
            model=RowLosses(model, terms),
            args=arguments,
            train_dataset=items,
            data_collator=collate,
            callbacks=[losses, *callbacks],
        )
        self.remove_callback(PrinterCallback)
        self.terms, self.weights, self.learning_rate = len(terms), weights, learning_rate
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

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        assert num_items_in_batch is not None
        model.train()
        indices, epoch = inputs["index"].tolist(), int(inputs["epoch"])
        total = torch.zeros((), device=self.args.device)
        # DeepSpeed shares gradients out in every backward pass: it gets a single one.
        size = self.terms if self.is_deepspeed_enabled else 1
        for start in range(0, self.terms, size):
            last = start + size >= self.terms
            with nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = model(slice(start, start + size), indices, epoch)
                    loss = loss / float(num_items_in_batch)
                # Devices take the mean of their gradients; a step wants the sum.
                self.accelerator.backward(loss * self.args.world_size)
            total += loss.detach()
        self.losses.loss += float(self.accelerator.reduce(total, "sum"))
        return total

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """What is trained, and once each: tied weights have one tensor."""
        if self.args.should_save and output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            trained = {n: p.data for n, p in self.model.named_parameters() if p.requires_grad}
            whole = trained if state_dict is None else {n: state_dict[n] for n in trained}
            save_file(whole, str(Path(output_dir) / WEIGHTS_FILE), metadata={"format": "pt"})

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # it would be read off token ids, which are not here

    @property
    def shares_weights(self) -> bool:
        """Whether no process holds the whole model (FSDP, DeepSpeed)."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def gathered(self, structure: nn.Module) -> nn.Module:
        """``structure`` with the trained weights: on the CPU of the first process, without
        weights on the others."""
        state = self.accelerator.get_state_dict(self.model_wrapped)
        return filled(structure, state) if self.is_world_process_zero() else structure


def structure_of(model: nn.Module) -> nn.Module:
    """A copy of ``model`` without its weights, ready to be ``filled``."""
    empty = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in model.parameters()
    }
    return copy.deepcopy(model, empty)


def filled(structure: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """``structure`` with the weights of the ``RowLosses`` in whose state they are."""
    own = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    structure.load_state_dict(own, assign=True)
    if hasattr(structure, "tie_weights"):
        structure.tie_weights()
    return structure.to("cpu")


class StepLosses(TrainerCallback):
    """Notes the loss of every step in the trainer's history, which checkpoints hold: a resumed
    training reports what an unbroken one would. Shows them in a bar."""

    def __init__(self, description: str) -> None:
        self.description = description
        self.bar: tqdm | None = None
        self.loss = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.description,
            leave=False,
            disable=not state.is_world_process_zero,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        state.log_history.append({"step": state.global_step, STEP_LOSS: self.loss})
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
        due = torch.tensor(time.monotonic() - self.last >= self.seconds, device=args.device)
        if broadcast(due).item():  # processes save together: the first one's clock counts
            control.should_save = True
            self.last = time.monotonic()


def last_checkpoint(folder: Path) -> Path | None:
    """The latest whole checkpoint in ``folder``; those cut off are deleted."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if (path / STATE_FILE).is_file():
            whole.append(path)
        else:
            shutil.rmtree(path, ignore_errors=True)  # other processes may be at it
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
