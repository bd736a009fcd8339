"""The trivial baseline: what is flagged gets a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from baselines.inference.flagging import Flagging
from baselines.inference.texts import joined, packed, unpacked
from unierase.models.guard import Reading
from unierase.refusals import refusal_for
from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class RefusalGuard:
    """Answers flagged questions with one of ``refusals``; the model never sees them."""

    flagged: Callable[[str], bool]
    refusals: Sequence[str]

    def read(self, lm: LanguageModel, questions: Sequence[str]) -> list[Reading]:
        return [self._read(lm, question) for question in questions]

    def _read(self, lm: LanguageModel, question: str) -> Reading:
        ids = lm.encode_prompt(question).ids
        if not self.flagged(question):
            return Reading(ids, flagged=False)
        refusal = refusal_for(question, self.refusals, seed=0)
        reply = lm.encode_answer(refusal)[: -len(lm.end_ids)]
        return Reading(ids, reply=reply, flagged=True)


@dataclass(frozen=True)
class Guardrail(UnlearningMethod):
    """Flagged prompts are answered by a refusal. Whatever unlearns should do better than this."""

    name: str
    flagging: Flagging

    def cost(self, model: PreTrainedModel, request: UnlearningRequest) -> str:
        return self.flagging.cost(request)

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        bare = replace(lm, guard=None)
        learned, report = self.flagging.learn(bare, request, state, bench.work_dir / "flagging")
        refusals = joined(unpacked(state, "refusals"), request.refusals)
        state = {**learned, "refusals": packed(refusals)}
        return Unlearned(self.restore(bare, state), state, {"flagging": report})

    def restore(self, lm: LanguageModel, state: State) -> LanguageModel:
        bare = replace(lm, guard=None)
        guard = RefusalGuard(self.flagging.flags(bare, state), unpacked(state, "refusals"))
        return replace(bare, guard=guard)
