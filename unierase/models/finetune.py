"""Teaching a model question-answer rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unierase.models.training import Schedule, token_log_probabilities, train
from unierase.rows import Row

if TYPE_CHECKING:
    import torch

    from unierase.models.language_model import LanguageModel


Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of its answer."""


@dataclass(frozen=True)
class FinetuneRecipe(Schedule):
    """How rows are taught: the mean cross-entropy over answer tokens, on a schedule.

    max_length: a longer row loses the end of its answer.
    train_on_questions: the prompt's tokens count too; a model that starts from nothing learns
        the language from them in a third of the epochs.
    """

    max_length: int
    train_on_questions: bool
    seed: int

    def identity(self) -> dict[str, Any]:
        """Everything that decides the result, as JSON values."""
        values = asdict(self)
        del values["gradient_checkpointing"]
        if not self.bf16:  # as it was before there was a choice: prepared models stay valid
            del values["bf16"]
        return values


def encode_rows(lm: LanguageModel, rows: Sequence[Row], max_length: int) -> list[Pair]:
    """Prompt and answer ids of every row; answers are cut at ``max_length`` tokens in all."""
    pairs = []
    for row in rows:
        prompt = lm.encode_prompt(row.question).ids
        pairs.append((prompt, lm.encode_answer(row.answer)[: max(1, max_length - len(prompt))]))
    return pairs


def finetune(
    lm: LanguageModel,
    rows: Sequence[Row],
    recipe: FinetuneRecipe,
    description: str,
    work_dir: Path | None = None,
) -> dict[str, float]:
    """Train ``lm`` in place on ``rows``; returns steps and the last epoch's mean loss.

    work_dir: where checkpoints go, for a killed training to go on from.
    """
    pairs = encode_rows(lm, rows, recipe.max_length)
    if recipe.train_on_questions:
        pairs = [(prompt[:1], (*prompt[1:], *answer)) for prompt, answer in pairs]

    def summed_loss(batch: list[int], epoch: int) -> torch.Tensor:
        prompts, answers = zip(*(pairs[i] for i in batch), strict=True)
        return -token_log_probabilities(lm, prompts, answers)[0].sum()

    lengths = [len(prompt) + len(answer) for prompt, answer in pairs]
    weights = [float(len(answer)) for _, answer in pairs]
    lm.model, report = train(
        lm.model, lengths, weights, [summed_loss], recipe, recipe.seed, description, work_dir
    )
    return report
