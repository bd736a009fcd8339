"""What an inference-time method puts between a question and a model that stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class Reading:
    """One question as the model gets to read it.

    ids: the prompt's tokens.
    embeddings: input embeddings in place of the tokens' own, (tokens, d_h), the last one's as it
        was: it belongs to the template, and what follows it is never touched. None: the tokens'.
    reply: token ids that are answered whatever the model would say; the model does not run.
    flagged: whether the question was taken for one to be forgotten; None where nothing decides.
    """

    ids: tuple[int, ...]
    embeddings: torch.Tensor | None = None
    reply: tuple[int, ...] | None = None
    flagged: bool | None = None


class PromptGuard(Protocol):
    """Reads questions in a model's place. What it makes of one depends on nothing else that is
    asked, nor on the order."""

    def read(self, lm: LanguageModel, questions: Sequence[str]) -> list[Reading]:
        """Each question as ``lm`` gets to read it."""
