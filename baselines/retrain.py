"""Retraining from the base model: perfect unlearning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class Retrain(UnlearningMethod):
    """The base model taught the request's retain rows only, by the target's own recipe."""

    name: str

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        return Unlearned(bench.targets.retrained(request.retain))
