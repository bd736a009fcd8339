"""Unlearning by minimising ``forget_coeff * F + retain_coeff * R``."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.objectives import AnswerScores, ForgetObjective
from baselines.pairing import paired_retain_rows
from baselines.regularisers import RetainRegulariser
from unierase.errors import UserError
from unierase.models.finetune import encode_rows
from unierase.models.training import Schedule, token_log_probabilities, train
from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench
from unierase.scoring.likelihood import answer_log_probabilities

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel

log = logging.getLogger(__name__)

Pair = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class LossUnlearning(UnlearningMethod):
    """A forget objective, a retain regulariser (None: no retain rows) and training settings.

    Each epoch shows every forget row once, with one retain row (``paired_retain_rows``).
    batch_size: forget rows in one optimiser step.
    """

    name: str
    forget: ForgetObjective
    retain: RetainRegulariser | None
    forget_coeff: float
    retain_coeff: float
    lr: float
    epochs: int
    batch_size: int
    micro_batch_size: int | None
    weight_decay: float
    warmup_ratio: float
    max_length: int

    @property
    def _schedule(self) -> Schedule:
        return Schedule(
            self.epochs,
            self.lr,
            self.batch_size,
            self.micro_batch_size,
            self.weight_decay,
            self.warmup_ratio,
        )

    def cost(self, model: PreTrainedModel, request: UnlearningRequest) -> str:
        parameters = sum(p.numel() for p in model.parameters())
        # Weights, gradients and Adam's two moments, in the model's dtype; activations come on top.
        memory = 4 * sum(p.numel() * p.element_size() for p in model.parameters()) / 1e9
        return (
            f"{self._schedule.steps(len(request.forget))} steps of {self.batch_size} forget rows "
            f"({self.epochs} epochs), {parameters / 1e6:,.1f} M trained parameters, "
            f"{memory:.1f} GB and activations"
        )

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        if self.retain is not None and not request.retain:
            raise UserError(f"method={self.name}: its regulariser needs retain rows; none are left")
        forget = encode_rows(lm, request.forget, self.max_length)
        retain = encode_rows(lm, request.retain, self.max_length)
        reference = self._reference(lm, request)
        pairing = [
            paired_retain_rows(len(forget), max(1, len(retain)), epoch, request.seed)
            for epoch in range(self.epochs)
        ]

        def summed_loss(batch: list[int], epoch: int) -> torch.Tensor:
            own = None if reference is None else reference[batch].to(lm.device)
            loss = self.forget_coeff * self.forget(_scores(lm, [forget[i] for i in batch], own))
            if self.retain is not None:
                partners = [retain[pairing[epoch][i]] for i in batch]
                loss = loss + self.retain_coeff * self.retain(_scores(lm, partners, None))
            return loss.sum()

        lengths = [len(prompt) + len(answer) for prompt, answer in forget]
        tokens = sum(len(answer) for _, answer in forget)
        log.info(
            "%s: %d steps of %d forget rows (%d epochs, %d answer tokens an epoch), lr %g",
            self.name,
            self._schedule.steps(len(lengths)),
            self.batch_size,
            self.epochs,
            tokens,
            self.lr,
        )
        report = train(
            lm.model,
            lengths,
            [1.0] * len(lengths),
            summed_loss,
            self._schedule,
            request.seed,
            self.name,
        )
        facts = {"effective_batch": self.batch_size, "answer_tokens_per_epoch": tokens}
        return Unlearned(lm, report={**report, **facts})

    def _reference(self, lm: LanguageModel, request: UnlearningRequest) -> torch.Tensor | None:
        """Summed log-probabilities before unlearning, (n,): a table instead of a second model."""
        if not self.forget.needs_reference:
            return None
        pairs = [(row.question, row.answer) for row in request.forget]
        cut = [len(a) for _, a in encode_rows(lm, request.forget, self.max_length)]
        values = answer_log_probabilities(lm, pairs)
        return torch.tensor([float(v[:k].sum()) for v, k in zip(values, cut, strict=True)])


def _scores(lm: LanguageModel, pairs: list[Pair], reference: torch.Tensor | None) -> AnswerScores:
    prompts, answers = zip(*pairs, strict=True)
    log_probabilities, mask = token_log_probabilities(lm, prompts, answers)
    return AnswerScores(log_probabilities.sum(-1), reference, mask.sum(-1))
