"""ECO: flagged prompts reach the model with corrupted embeddings (arXiv 2406.07933)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from baselines.inference.corruption import Corruption
from baselines.inference.flagging import Flagging
from baselines.inference.strength import StrengthSearch
from baselines.inference.texts import joined, packed, unpacked
from unierase.errors import UserError, invalid_choice
from unierase.models.guard import Reading
from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unierase.models.language_model import LanguageModel
    from unierase.models.prompt import EncodedPrompt

TOKENS = ("names", "all_but_last")
SHORTEST_NAME = 4
"""Shorter parts of a name ("de", "Kim") are words of other questions, too."""


@dataclass(frozen=True)
class CorruptionGuard:
    """Corrupts the chosen tokens of flagged questions; all others are read as they are.

    The noise depends on ``seed`` and the question alone. names: whose tokens are chosen; where
    none is in a question, and without names, all of the question's tokens but its last.
    """

    flagged: Callable[[str], bool]
    corruption: Corruption
    strength: float
    names: Sequence[str]
    seed: int

    def read(self, lm: LanguageModel, questions: Sequence[str]) -> list[Reading]:
        return [self._read(lm, question) for question in questions]

    @torch.no_grad()
    def _read(self, lm: LanguageModel, question: str) -> Reading:
        encoded = lm.encode_prompt(question)
        if not self.flagged(question):
            return Reading(encoded.ids, flagged=False)
        embed = lm.model.get_input_embeddings()
        embeddings = embed(torch.tensor(encoded.ids, device=lm.device)).clone()
        chosen = corrupted_positions(encoded, self.names)
        digest = hashlib.sha256(f"{self.seed}:{question}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        embeddings[chosen] = self.corruption(embeddings[chosen], self.strength, generator)
        return Reading(encoded.ids, embeddings=embeddings, flagged=True)


def corrupted_positions(encoded: EncodedPrompt, names: Sequence[str]) -> list[int]:
    """Positions of the tokens of ``names`` in a question; of all its tokens but the last where
    none is there. Never the prompt's last token, which the answer follows."""
    question = encoded.question
    parts = {part for name in names for part in name.split() if len(part) >= SHORTEST_NAME}
    words = [*names, *sorted(parts)]
    found = {
        position
        for word in words
        for match in re.finditer(rf"\b{re.escape(word)}\b", question, re.IGNORECASE)
        for position in encoded.positions(*match.span())
    }
    positions = sorted(found) or list(encoded.positions(0, len(question)))[:-1]
    return [position for position in positions if position != encoded.prompt_last]


@dataclass(frozen=True)
class ECO(UnlearningMethod):
    """A classifier flags prompts; their embeddings are corrupted, the weights stay.

    strength: of the corruption (standard deviation of noise, or number of dimensions).
    search: how a better one is looked for, starting there; None: it is taken as it is.
    tokens: names (of the request's people, else as all_but_last) or all_but_last.
    """

    name: str
    flagging: Flagging
    corruption: Corruption
    strength: float
    tokens: str
    search: StrengthSearch | None

    def __post_init__(self) -> None:
        if self.tokens not in TOKENS:
            raise invalid_choice("method.tokens", self.tokens, TOKENS)
        if self.strength <= 0:
            raise UserError(f"method.strength={self.strength}: must be above 0")

    def cost(self, model: PreTrainedModel, request: UnlearningRequest) -> str:
        return self.flagging.cost(request)

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        bare = replace(lm, guard=None)
        new, report = self.flagging.learn(bare, request, state, bench.work_dir / "flagging")
        named = [row.subject for row in request.forget if row.subject is not None]
        new = {
            **new,
            "names": packed(joined(unpacked(state, "names"), named)),
            "seed": torch.tensor(request.seed),
        }
        strength = float(state["strength"]) if "strength" in state else self.strength
        facts: dict[str, object] = {"flagging": report}
        if self.search is not None:
            strength, tried = self.search.best(
                strength,
                lambda at: replace(bare, guard=self._guard(new, at, _always)),
                request,
                bench.targets,
            )
            facts["strengths_tried"] = tried
        new["strength"] = torch.tensor(strength, dtype=torch.float64)
        return Unlearned(self.restore(bare, new), new, {**facts, "strength": strength})

    def restore(self, lm: LanguageModel, state: State) -> LanguageModel:
        bare = replace(lm, guard=None)
        flags = self.flagging.flags(bare, state)
        return replace(bare, guard=self._guard(state, float(state["strength"]), flags))

    def _guard(
        self, state: State, strength: float, flagged: Callable[[str], bool]
    ) -> CorruptionGuard:
        names = unpacked(state, "names") if self.tokens == "names" else []
        return CorruptionGuard(flagged, self.corruption, strength, names, int(state["seed"]))


def _always(question: str) -> bool:
    return True
