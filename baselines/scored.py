"""What objectives are functions of: a batch of rows as the model in training sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from unierase.errors import UserError


@dataclass(frozen=True)
class Scored:
    """The answers of a batch, token by token. Padding has mask 0 and log-probability 0.

    log_probabilities, mask: (batch, longest).
    logits: (batch, longest, vocabulary) at the positions that predict those tokens, float32;
        None unless asked for.
    targets: the tokens' ids, (batch, longest).
    """

    log_probabilities: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    logits: torch.Tensor | None = None

    @property
    def summed(self) -> torch.Tensor:
        """-L: the log-probability of each answer, (batch,)."""
        return self.log_probabilities.sum(-1)

    @property
    def tokens(self) -> torch.Tensor:
        """Number of tokens of each answer, (batch,)."""
        return self.mask.sum(-1)

    @property
    def mean(self) -> torch.Tensor:
        """-l: the mean log-probability of each answer's tokens, (batch,)."""
        return self.summed / self.tokens

    def mean_over_tokens(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of a value of every token, (batch, longest) -> (batch,)."""
        return (values * self.mask).sum(-1) / self.tokens

    def all_logits(self) -> torch.Tensor:
        if self.logits is None:
            raise ValueError("this objective needs logits")
        return self.logits


@dataclass(frozen=True)
class Batch:
    """answer: the rows' own answers. refusal: a refusal to each question.

    answer_reference, refusal_reference: their summed log-probabilities before unlearning, (batch,).
    reference_logits: as ``answer.logits``, before unlearning.
    Whatever an objective does not ask for is None.
    """

    answer: Scored
    refusal: Scored | None = None
    answer_reference: torch.Tensor | None = None
    refusal_reference: torch.Tensor | None = None
    reference_logits: torch.Tensor | None = None


@dataclass(frozen=True)
class Needs:
    """What an objective asks for besides the answers' log-probabilities.

    answer: whether the answers are read at all. refusal: a refusal to each question.
    reference: summed log-probabilities before unlearning, of all that is read.
    logits: those of the model in training. reference_logits: those before unlearning, which take
        a copy of the model. prompt: the question's tokens count as the answer's do.
    """

    answer: bool = True
    refusal: bool = False
    reference: bool = False
    logits: bool = False
    reference_logits: bool = False
    prompt: bool = False


class Objective(Protocol):
    """A pure function of a batch, one value per example, (batch,): to be minimised."""

    @property
    def needs(self) -> Needs: ...

    def __call__(self, batch: Batch) -> torch.Tensor: ...


def above_zero(option: str, value: float) -> None:
    """Raise a UserError unless ``value`` is above 0."""
    if value <= 0:
        raise UserError(f"{option}={value}: must be above 0")


def present(tensor: torch.Tensor | None) -> torch.Tensor:
    """What an objective asked for in its ``needs``."""
    if tensor is None:
        raise ValueError("the batch lacks what this objective needs")
    return tensor


def refusals_of(batch: Batch) -> Scored:
    """The refusals an objective asked for."""
    if batch.refusal is None:
        raise ValueError("the batch lacks the refusals this objective needs")
    return batch.refusal
