"""Unlearning by minimising ``forget_coeff * F + retain_coeff * R``."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from baselines.lora import LoRA
from baselines.pairing import paired_retain_rows
from baselines.scored import Batch, Needs, Objective, Scored
from unierase.errors import UserError
from unierase.models.finetune import Pair, encode_rows
from unierase.models.training import Schedule, answer_logits, picked, train
from unierase.refusals import refusal_to
from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench
from unierase.rows import Row
from unierase.scoring.likelihood import answer_log_probabilities

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LossUnlearning(Schedule, UnlearningMethod):
    """A forget objective and a retain regulariser (None: no retain rows), on a schedule.

    Each epoch shows every forget row once, with one retain row (``paired_retain_rows``); the
    schedule's examples are the forget rows.
    lora: train adapters instead of all weights; None: all weights.
    """

    name: str
    forget: Objective
    retain: Objective | None
    forget_coeff: float
    retain_coeff: float
    max_length: int
    lora: LoRA | None = None

    def cost(self, model: PreTrainedModel, request: UnlearningRequest) -> str:
        return (
            f"{self.steps(len(request.forget))} steps of {self.batch_size} forget rows "
            f"({self.epochs} epochs), {self._trained(model) / 1e6:,.1f} M trained parameters, "
            f"{self._memory(model) / 1e9:.1f} GB and activations"
        )

    def _trained(self, model: PreTrainedModel) -> int:
        """Number of trained parameters."""
        if self.lora is not None:
            return self.lora.parameters(model)
        return sum(p.numel() for p in model.parameters())

    def _memory(self, model: PreTrainedModel) -> int:
        """Bytes of weights, gradients and Adam's two moments; activations come on top."""
        parameters = sum(p.numel() for p in model.parameters())
        copies = 2 if self._needs_copy else 1
        bytes_each = next(model.parameters()).element_size()
        return (copies * parameters + 3 * self._trained(model)) * bytes_each

    @property
    def _parts(self) -> list[Objective]:
        return [self.forget] if self.retain is None else [self.forget, self.retain]

    @property
    def _needs_copy(self) -> bool:
        return self.lora is None and any(part.needs.reference_logits for part in self._parts)

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        if self.retain is not None and not request.retain:
            raise UserError(f"method={self.name}: its regulariser needs retain rows; none are left")
        if not request.refusals and any(part.needs.refusal for part in self._parts):
            raise UserError(f"method={self.name}: it needs refusals; the data has none")
        facts = {
            "effective_batch": self.batch_size,
            "trained_parameters": self._trained(lm.model),
            "expected_bytes": self._memory(lm.model),
        }
        before: Before = None
        if self.lora is not None:
            adapted = self.lora.wrap(lm.model, request.seed)
            lm = replace(lm, model=adapted)
            before = partial(_without_adapter, lm)
        elif self._needs_copy:
            # Full distributions before unlearning fill no table: who needs them pays for a copy.
            before = partial(_of_copy, lm, copy.deepcopy(lm.model).requires_grad_(False))
        forget = _Rows(lm, request.forget, request, self.forget.needs, self.max_length, before)
        retain = None
        if self.retain is not None:
            needs = self.retain.needs
            retain = _Rows(lm, request.retain, request, needs, self.max_length, before)
        pairing = [
            paired_retain_rows(len(forget), len(request.retain) or 1, epoch, request.seed)
            for epoch in range(self.epochs)
        ]

        def forgetting(batch: list[int], epoch: int) -> torch.Tensor:
            return self.forget_coeff * self.forget(forget.batch(batch)).sum()

        def retaining(batch: list[int], epoch: int) -> torch.Tensor:
            assert self.retain is not None and retain is not None
            partners = [pairing[epoch][i] for i in batch]
            return self.retain_coeff * self.retain(retain.batch(partners)).sum()

        log.info(
            "%s: %d steps of %d forget rows (%d epochs, %d answer tokens an epoch), lr %g",
            self.name,
            self.steps(len(forget)),
            self.batch_size,
            self.epochs,
            forget.answer_tokens,
            self.lr,
        )
        lm.model, report = train(
            lm.model,
            forget.lengths,
            [1.0] * len(forget),
            [forgetting] if retain is None else [forgetting, retaining],
            self,
            request.seed,
            self.name,
            bench.work_dir / "training",
            bench.report_to,
        )
        if self.lora is not None:
            lm = replace(lm, model=lm.model.merge_and_unload())
            lm.model.requires_grad_(True)
        tokens = {"answer_tokens_per_epoch": forget.answer_tokens}
        return Unlearned(lm, report={**report, **facts, **tokens})


Before = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], torch.Tensor] | None
"""Logits of the model before unlearning after prompts, at answers; None if nobody needs them."""


def _of_copy(
    lm: LanguageModel,
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
) -> torch.Tensor:
    return answer_logits(lm, prompts, answers, model)[0]


def _without_adapter(
    lm: LanguageModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    with lm.model.disable_adapter():
        return answer_logits(lm, prompts, answers)[0]


class _Rows:
    """Rows of a request, ready to be cut into what an objective needs."""

    def __init__(
        self,
        lm: LanguageModel,
        rows: Sequence[Row],
        request: UnlearningRequest,
        needs: Needs,
        max_length: int,
        before: Before,
    ) -> None:
        self.lm, self.needs, self.before = lm, needs, before
        self.answers = encode_rows(lm, rows, max_length)
        self.refusals: list[Pair] = []
        if needs.refusal:
            refused = [
                replace(row, answer=refusal_to(row, request.refusals, request.seed)) for row in rows
            ]
            self.refusals = encode_rows(lm, refused, max_length)
        self.answer_reference = self.refusal_reference = None
        if needs.reference:
            self.answer_reference = _reference(lm, rows, self.answers)
            if needs.refusal:
                self.refusal_reference = _reference(lm, refused, self.refusals)

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def lengths(self) -> list[int]:
        return [len(prompt) + len(answer) for prompt, answer in self.answers]

    @property
    def answer_tokens(self) -> int:
        return sum(len(answer) for _, answer in self.answers)

    def batch(self, chosen: Sequence[int]) -> Batch:
        needs = self.needs
        refusal = self._scored(self.refusals, chosen)[0] if needs.refusal else None
        if not needs.answer:
            assert refusal is not None
            return Batch(refusal, refusal)  # nobody reads the answers: they are not run
        answer, reference_logits = self._scored(self.answers, chosen)
        return Batch(
            answer,
            refusal,
            _picked_rows(self.answer_reference, chosen, answer),
            _picked_rows(self.refusal_reference, chosen, answer),
            reference_logits,
        )

    def _scored(
        self, pairs: Sequence[Pair], chosen: Sequence[int]
    ) -> tuple[Scored, torch.Tensor | None]:
        own = [pairs[i] for i in chosen]
        if self.needs.prompt:  # the first token has nothing to be predicted from
            own = [(prompt[:1], (*prompt[1:], *answer)) for prompt, answer in own]
        prompts, answers = zip(*own, strict=True)
        logits, targets, mask = answer_logits(self.lm, prompts, answers)
        scored = Scored(
            picked(logits, targets) * mask, mask, targets, logits if self.needs.logits else None
        )
        reference = None
        if self.needs.reference_logits and self.before is not None:
            with torch.no_grad():
                reference = self.before(prompts, answers)
        return scored, reference


def _picked_rows(
    table: torch.Tensor | None, chosen: Sequence[int], like: Scored
) -> torch.Tensor | None:
    return None if table is None else table[list(chosen)].to(like.mask.device)


def _reference(lm: LanguageModel, rows: Sequence[Row], encoded: Sequence[Pair]) -> torch.Tensor:
    """Summed log-probabilities before unlearning, (n,): a table instead of a second model."""
    values = answer_log_probabilities(lm, [(row.question, row.answer) for row in rows])
    return torch.tensor(
        [float(v[: len(answer)].sum()) for v, (_, answer) in zip(values, encoded, strict=True)]
    )
