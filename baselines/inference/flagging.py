"""Which prompts are to be forgotten: a classifier, its threshold, and how well it tells."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from baselines.inference.classifier import PromptClassifier
from baselines.inference.general_prompts import GENERAL_PROMPTS
from baselines.inference.texts import joined, packed, unpacked
from unierase.errors import UserError
from unierase.request import State, UnlearningRequest

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

FEWEST = 5
"""With fewer prompts of a class none is held out: what it would tell is noise."""


@dataclass(frozen=True)
class Flagging:
    """A prompt is flagged where its score is above ``threshold``.

    The classifier learns the questions of all requests so far against those of the retain rows
    and against ``GENERAL_PROMPTS``; later rounds start from what the round before had learned.

    held_out: share of both classes that a trial fit does not see, to measure precision and recall;
        the classifier in use has seen all.
    """

    classifier: PromptClassifier
    threshold: float
    held_out: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UserError(f"method.flagging.threshold={self.threshold}: must be in (0, 1)")
        if not 0 <= self.held_out < 1:
            raise UserError(f"method.flagging.held_out={self.held_out}: must be in [0, 1)")

    def cost(self, request: UnlearningRequest) -> str:
        """What learning takes, in words."""
        other = len(request.retain) + len(GENERAL_PROMPTS)
        return (
            f"no weights change; a classifier learns {len(request.forget)} prompts against {other} "
            "others and scores every prompt from then on"
        )

    def learn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, work_dir: Path
    ) -> tuple[State, dict[str, Any]]:
        """What the next round and ``flags`` need, by names of its own, and what was measured."""
        forget = joined(
            unpacked(state, "flagging.forget"), [row.question for row in request.forget]
        )
        known = set(forget)
        retain = [row.question for row in request.retain if row.question not in known]
        other = joined(retain, GENERAL_PROMPTS)
        before = _own(state)
        here = replace(self, classifier=self.classifier.remembering())
        report = here._trial(lm, forget, other, before, request.seed, work_dir / "trial")
        learned = here.classifier.fit(lm, forget, other, before, request.seed, work_dir / "whole")
        new = {f"flagging.learned.{name}": tensor for name, tensor in learned.items()}
        new["flagging.forget"] = packed(forget)
        flags = here.flags(lm, new)
        paraphrases = [row.paraphrased_question for row in request.forget]
        asked = [question for question in paraphrases if question is not None]
        report["recall_learned"] = _share(flags, forget)
        report["recall_paraphrased"] = _share(flags, asked)
        report["false_positives_learned"] = _share(flags, other)
        return new, report

    def flags(self, lm: LanguageModel, state: State) -> Callable[[str], bool]:
        """Whether a prompt is flagged; every prompt is scored once."""
        score = self.classifier.scorer(lm, _own(state))
        known: dict[str, bool] = {}

        def flagged(prompt: str) -> bool:
            if prompt not in known:
                known[prompt] = score(prompt) > self.threshold
            return known[prompt]

        return flagged

    def _trial(
        self,
        lm: LanguageModel,
        forget: Sequence[str],
        other: Sequence[str],
        before: State,
        seed: int,
        work_dir: Path,
    ) -> dict[str, Any]:
        """Precision, recall and false-positive rate on prompts the classifier has not seen."""
        report: dict[str, Any] = {"threshold": self.threshold, "forget": len(forget)}
        report |= {"other": len(other), "precision": None, "recall": None, "false_positives": None}
        if before or not self.held_out or min(len(forget), len(other)) < FEWEST:
            # A classifier that goes on from an earlier round has seen what would be held out.
            return report
        kept, unseen = _split(forget, self.held_out, seed)
        kept_other, unseen_other = _split(other, self.held_out, seed)
        learned = self.classifier.fit(lm, kept, kept_other, {}, seed, work_dir)
        score = self.classifier.scorer(lm, learned)
        right = sum(score(prompt) > self.threshold for prompt in unseen)
        wrong = sum(score(prompt) > self.threshold for prompt in unseen_other)
        report["precision"] = right / (right + wrong) if right + wrong else None
        report["recall"] = right / len(unseen)
        report["false_positives"] = wrong / len(unseen_other)
        return report


def _own(state: State) -> dict[str, torch.Tensor]:
    prefix = "flagging.learned."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _split(prompts: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """All but ``share`` of the prompts, and the rest; at least one on each side."""
    shuffled = list(prompts)
    random.Random(f"held out:{seed}").shuffle(shuffled)
    count = min(len(shuffled) - 1, max(1, round(share * len(shuffled))))
    return shuffled[count:], shuffled[:count]


def _share(flags: Callable[[str], bool], prompts: Sequence[str]) -> float | None:
    return sum(flags(prompt) for prompt in prompts) / len(prompts) if prompts else None
