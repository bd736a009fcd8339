"""Retain regularisers: R of the total loss, on a retain row for every forget row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from baselines.scored import Batch, Needs, above_zero, present, refusals_of


@dataclass(frozen=True)
class GradientDescent:
    """R = l, the mean cross-entropy over answer tokens (TOFU, arXiv 2401.06121)."""

    needs = Needs()

    def __call__(self, batch: Batch) -> torch.Tensor:
        return -batch.answer.mean


@dataclass(frozen=True)
class KLToReference:
    """R = mean over tokens of KL(p_ref || p) (TOFU, arXiv 2401.06121).

    on_prompt: the question's tokens count, too. Published code takes them and padding as well;
    padding never counts here.
    """

    on_prompt: bool = False

    @property
    def needs(self) -> Needs:
        return Needs(logits=True, reference_logits=True, prompt=self.on_prompt)

    def __call__(self, batch: Batch) -> torch.Tensor:
        reference = present(batch.reference_logits).log_softmax(-1)
        own = batch.answer.all_logits().log_softmax(-1)
        return batch.answer.mean_over_tokens((reference.exp() * (reference - own)).sum(-1))


@dataclass(frozen=True)
class AnswerPreservation:
    """R = -(1/beta) logsigmoid(beta (L_idk - L)): on retain questions the answer is preferred to a
    refusal (arXiv 2410.08109)."""

    beta: float = 0.1
    needs = Needs(refusal=True)

    def __post_init__(self) -> None:
        above_zero("method.retain.beta", self.beta)

    def __call__(self, batch: Batch) -> torch.Tensor:
        margin = batch.answer.summed - refusals_of(batch).summed  # L_idk - L
        return -(1.0 / self.beta) * logsigmoid(self.beta * margin)
