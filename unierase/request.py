"""The interface every unlearning method implements: a request and a model in, a model out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from unierase.rows import Row

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel


State: TypeAlias = "Mapping[str, torch.Tensor]"
"""What a method hands from round to round, by name; safetensors holds it."""


@dataclass(frozen=True)
class UnlearningRequest:
    """What is to be forgotten now, and what has to stay.

    ``round`` counts from 1. ``seed`` is the only source of randomness a method may use.
    ``refusals`` are the sentences to choose from where a method needs a refusal.
    ``earlier`` are the rows of every earlier round, which are to stay forgotten.
    """

    forget: tuple[Row, ...]
    retain: tuple[Row, ...]
    refusals: tuple[str, ...]
    round: int
    seed: int
    earlier: tuple[tuple[Row, ...], ...] = ()


class RetrainsModels(Protocol):
    """Gives the model that never saw some rows: the yardstick of unlearning."""

    def retrained(self, rows: tuple[Row, ...]) -> LanguageModel:
        """The base model taught ``rows`` by the recipe that made the target."""


@dataclass(frozen=True)
class Workbench:
    """What a method may use besides its model and its request.

    work_dir: scratch folder of this one request; survives a kill, so checkpoints go here.
    cache_dir: folder shared by all runs; entries are keyed by everything that decides them.
    targets: makes a retrained model.
    report_to: what transformers' Trainer reports its steps to, besides the record ("wandb").
    """

    work_dir: Path
    cache_dir: Path
    targets: RetrainsModels
    report_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unlearned:
    """An unlearned model.

    lm: generates and scores like any other model. It may be the object that came in, changed in
        place: the caller keeps no use of the model it handed over.
    state: what the next round needs to know of this one, as named tensors (safetensors holds it).
    report: facts for the record (JSON values): steps, losses, diagnosis of an edit.
    """

    lm: LanguageModel
    state: State = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


class UnlearningMethod(Protocol):
    """A way to unlearn: training, editing and inference-time methods alike."""

    def check(self, model: PreTrainedModel) -> None:
        """Raise a UserError for settings that ``model``, still without weights, cannot have.

        Called before anything costly is done. Methods that fit every model leave it as it is.
        """
        return None

    def cost(self, model: PreTrainedModel, request: UnlearningRequest) -> str | None:
        """What ``request`` takes on ``model``, still without weights, in words; printed before
        the run. None where a method cannot say."""
        return None

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        """Make ``lm`` forget ``request.forget``; ``state`` is empty in the first round.

        A method that leaves the weights alone goes by ``state`` alone: ``lm`` comes with the
        guard of the round before, or without one where a run was resumed."""

    def restore(self, lm: LanguageModel, state: State) -> LanguageModel:
        """The unlearned model from its checkpoint and the state that ``unlearn`` returned.

        Methods whose checkpoint is all there is leave it as it is."""
        return lm
