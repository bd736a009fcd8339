"""How strongly an answer pulls at the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from tqdm.auto import tqdm

from unierase.scoring.batching import embedded, left_pad

if TYPE_CHECKING:
    from unierase.models.guard import Reading
    from unierase.models.language_model import LanguageModel


def gradient_norms(
    lm: LanguageModel,
    pairs: Sequence[tuple[str, Sequence[int]]],
    progress: str | None = None,
) -> list[float | None]:
    """||dL / d theta||_2 of every (question, token ids of an answer), in the order given.

    L: the mean cross-entropy of the answer's tokens; theta: all of the model's weights. A row at a
    time: a gradient of a batch says nothing of its rows. Each weight's gradient is dropped once it
    is measured, so the gradient of the whole model is never kept. None where a fixed reply is
    given.
    """
    readings = lm.read([question for question, _ in pairs])
    norms: list[float | None] = []
    with _squares_of_gradients(lm) as squares:
        for reading, (_, answer) in tqdm(
            zip(readings, pairs, strict=True),
            desc=progress,
            total=len(pairs),
            disable=progress is None,
            leave=False,
        ):
            if reading.reply is not None:
                norms.append(None)
                continue
            squares.clear()
            _loss(lm, reading, answer).backward()
            norms.append(float(torch.stack(squares).sum().sqrt()))
    return norms


def _loss(lm: LanguageModel, reading: Reading, answer: Sequence[int]) -> torch.Tensor:
    """The mean cross-entropy of ``answer``'s tokens."""
    inputs = left_pad([(*reading.ids, *answer[:-1])], lm.pad_id, lm.device)
    if reading.embeddings is not None:
        own = lm.model.get_input_embeddings()(inputs["input_ids"][:, len(reading.ids) :])
        whole = torch.cat([reading.embeddings.to(own), own[0]])
        inputs = embedded(lm.model, inputs, [whole])
    logits = lm.model(**inputs, use_cache=False, logits_to_keep=len(answer)).logits[0]
    return functional.cross_entropy(logits.float(), torch.tensor(answer, device=logits.device))


@contextmanager
def _squares_of_gradients(lm: LanguageModel) -> Iterator[list[torch.Tensor]]:
    """A list that backward passes add each weight's squared norm to, in place of its gradient."""
    squares: list[torch.Tensor] = []

    def measure(weight: torch.Tensor) -> None:
        assert weight.grad is not None
        squares.append(weight.grad.float().square().sum())
        weight.grad = None

    weights = list(lm.model.parameters())
    trained = [weight.requires_grad for weight in weights]
    hooks = []
    try:
        for weight in weights:
            weight.requires_grad_(True)
            hooks.append(weight.register_post_accumulate_grad_hook(measure))
        yield squares
    finally:
        for hook in hooks:
            hook.remove()
        for weight, before in zip(weights, trained, strict=True):
            weight.requires_grad_(before)
