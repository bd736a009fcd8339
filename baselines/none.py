"""No unlearning at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class NoUnlearning(UnlearningMethod):
    """Returns the model as it is: the lower end of every scale of forgetting."""

    name: str

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        return Unlearned(lm)
