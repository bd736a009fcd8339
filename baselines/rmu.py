"""RMU: forget rows' hidden states are steered to a random direction (arXiv 2403.03218)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from baselines.pairing import paired_retain_rows
from unierase.errors import UserError
from unierase.models.finetune import Pair, encode_rows
from unierase.models.layers import (
    checked_layers,
    decoder_layers,
    down_projection,
    frozen,
    hidden_states,
)
from unierase.models.training import Schedule, answer_mask, train
from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench
from unierase.scoring.batching import left_pad

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel

PUBLISHED_LAYER, PUBLISHED_DEPTH, TRAINED = 7, 32, 3


@dataclass(frozen=True)
class RMU(Schedule, UnlearningMethod):
    """F = mean over answer tokens of |h - c u|^2 / d_h, R the same towards what h was before.

    h: the hidden state after the steered layer; u: a unit vector drawn from the seed. Only the
    down-projections of the steered layer and the two below it are trained, and no layer above
    runs. Tokens are averaged row by row, so that long answers count as much as short ones.

    layer: the steered layer; None: as deep as layer 7 of 32 (published).
    steering: c. alpha: weight of R.
    """

    name: str
    layer: int | None
    steering: float
    alpha: float
    max_length: int

    def check(self, model: PreTrainedModel) -> None:
        if self.layer is not None:
            checked_layers(model, [self.layer])
        for layer in self._trained(model):
            down_projection(model, layer)

    def _steered(self, model: PreTrainedModel) -> int:
        if self.layer is not None:
            return self.layer
        return round(PUBLISHED_LAYER * len(decoder_layers(model)) / PUBLISHED_DEPTH)

    def _trained(self, model: PreTrainedModel) -> range:
        steered = self._steered(model)
        return range(max(0, steered - TRAINED + 1), steered + 1)

    def _projections(self, model: PreTrainedModel) -> list[nn.Parameter]:
        return [down_projection(model, layer).weight for layer in self._trained(model)]

    def cost(self, model: PreTrainedModel, request: UnlearningRequest) -> str:
        trained = sum(p.numel() for p in self._projections(model))
        return (
            f"{self.steps(len(request.forget))} steps of {self.batch_size} forget rows "
            f"({self.epochs} epochs), {trained / 1e6:,.1f} M trained parameters in layers "
            f"{', '.join(map(str, self._trained(model)))}; layers above do not run"
        )

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        if not request.retain:
            raise UserError(f"method={self.name}: it needs retain rows; none are left")
        layer = self._steered(lm.model)
        forget = encode_rows(lm, request.forget, self.max_length)
        retain = encode_rows(lm, request.retain, self.max_length)
        target = self.steering * _unit_vector(lm, request.seed)
        pairing = [
            paired_retain_rows(len(forget), len(retain), epoch, request.seed)
            for epoch in range(self.epochs)
        ]
        used = sorted({i for epoch in pairing for i in epoch})
        before = dict(zip(used, _before(lm, [retain[i] for i in used], layer), strict=True))

        def steered(batch: list[int], epoch: int) -> torch.Tensor:
            hidden, mask = _at_answers(lm, [forget[i] for i in batch], layer)
            return _distance(hidden, target.expand_as(hidden), mask).sum()

        def kept(batch: list[int], epoch: int) -> torch.Tensor:
            partners = [pairing[epoch][i] for i in batch]
            hidden, mask = _at_answers(lm, [retain[i] for i in partners], layer)
            known = _stacked([before[i] for i in partners], hidden)
            return self.alpha * _distance(hidden, known, mask).sum()

        lengths = [len(prompt) + len(answer) for prompt, answer in forget]
        with _only(lm.model, self._projections(lm.model)):
            lm.model, report = train(
                lm.model,
                lengths,
                [1.0] * len(forget),
                [steered, kept],
                self,
                request.seed,
                self.name,
                bench.work_dir / "training",
                bench.report_to,
            )
        facts = {
            "effective_batch": self.batch_size,
            "trained_parameters": sum(p.numel() for p in self._projections(lm.model)),
            "steered_layer": layer,
        }
        return Unlearned(lm, report={**report, **facts})


@contextmanager
def _only(model: nn.Module, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within the context nothing but ``trained`` asks for a gradient."""
    with frozen(model):
        for parameter in trained:
            parameter.requires_grad_(True)
        yield


def _unit_vector(lm: LanguageModel, seed: int) -> torch.Tensor:
    """Uniform in [0, 1)^d, then of length 1, (d_h,)."""
    size = lm.model.config.get_text_config().hidden_size
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    return (drawn / drawn.norm()).to(lm.device)


def _at_answers(
    lm: LanguageModel, pairs: Sequence[Pair], layer: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states at the answers' tokens, (rows, longest, d_h) in float32, and their mask."""
    inputs = left_pad([(*prompt, *answer) for prompt, answer in pairs], lm.pad_id, lm.device)
    mask = answer_mask([answer for _, answer in pairs], lm.device)
    return hidden_states(lm.model, inputs, layer)[:, -mask.shape[1] :].float(), mask


def _distance(hidden: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared distance over a row's tokens and dimensions, (rows,)."""
    squares = ((hidden - target) ** 2).mean(-1)
    return (squares * mask).sum(-1) / mask.sum(-1)


@torch.no_grad()
def _before(
    lm: LanguageModel, pairs: Sequence[Pair], layer: int, rows: int = 16
) -> Iterator[torch.Tensor]:
    """Each row's states before unlearning, (answer tokens, d_h), on the CPU: a table instead of
    a second model."""
    for start in range(0, len(pairs), rows):
        chosen = pairs[start : start + rows]
        hidden, mask = _at_answers(lm, chosen, layer)
        for states, real in zip(hidden, mask.bool(), strict=True):
            yield states[real].cpu()


def _stacked(rows: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """The rows in one tensor shaped as ``like``, on the right; 0 elsewhere."""
    stacked = torch.zeros_like(like)
    for i, row in enumerate(rows):
        stacked[i, -len(row) :] = row.to(like)
    return stacked
