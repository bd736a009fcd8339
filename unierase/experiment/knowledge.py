"""What the target knows: its answers to questions without one, and the probes it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unierase.errors import UserError
from unierase.experiment.scenarios import Step
from unierase.files import build_folder, content_key, read_json, write_json
from unierase.rows import Row
from unierase.scores import SetScores, answer_sets

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

MOST_TOKENS = 64
"""Of an answer that the target gives itself."""


@dataclass(frozen=True)
class OwnAnswers:
    """The target's greedy answers, computed once and kept on disk.

    target: loads it. target_key: names it in the cache.
    """

    target: Callable[[], LanguageModel]
    target_key: str
    cache_dir: Path

    def fill(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        """The same steps; where a row of a request has no answer, what the target says."""
        requests = [step.request for step in steps]
        asked = {
            row.question: None
            for request in requests
            for row in (*request.forget, *request.retain)
            if not row.answer
        }
        if not asked:
            return tuple(steps)
        answers = self._answers(list(asked))

        def filled(rows: Sequence[Row]) -> tuple[Row, ...]:
            return tuple(r if r.answer else replace(r, answer=answers[r.question]) for r in rows)

        return tuple(
            replace(
                step,
                request=replace(
                    step.request,
                    forget=filled(step.request.forget),
                    retain=filled(step.request.retain),
                ),
            )
            for step in steps
        )

    def _answers(self, questions: list[str]) -> dict[str, str]:
        key = content_key({"model": self.target_key, "tokens": MOST_TOKENS, "asked": questions})

        def build(folder: Path) -> None:
            from unierase.scoring.generation import generate

            said = generate(self.target(), questions, MOST_TOKENS, progress="the target's answers")
            texts = (answer.text for answer in said)
            write_json(folder / "answers.json", dict(zip(questions, texts, strict=True)))

        folder = build_folder(self.cache_dir / "answers" / key, build)
        return dict(read_json(folder / "answers.json"))


def known_only(
    step: Step, before: SetScores, probes: Sequence[str], rouge: float
) -> tuple[Step, dict[str, tuple[int, int]]]:
    """The same step with those ``probes`` (names of sets) the target answers with a ROUGE-L of
    ``rouge``, and of each set how many of how many. Raises a UserError where it answers none."""
    sets, counts = dict(step.sets), {}
    for name, rows in answer_sets(before).items():
        if name.replace("earlier", "forget", 1) in probes and rows:
            known = {row.id for row in rows if row.rouge >= rouge}
            sets[name] = tuple(row for row in step.sets[name] if row.id in known)
            counts[name] = len(known), len(rows)
    if not any(sets[name] for name in probes if name in sets and name.startswith("forget")):
        raise UserError(
            f"data.known_only=true: the target answers none of the probes of {step.name} with a "
            f"ROUGE-L of {rouge}; use a model that knows them, data.teach=true or a lower "
            "data.known_rouge"
        )
    return replace(step, sets=sets), counts


def known_note(counts: Sequence[Mapping[str, tuple[int, int]]]) -> str:
    """What ``known_only`` counted over all steps, in words; earlier tasks' probes were counted
    when they were their own step's."""
    names = dict.fromkeys(n for step in counts for n in step if not n.startswith("earlier"))
    parts = [
        f"{sum(step[n][0] for step in counts if n in step)} of "
        f"{sum(step[n][1] for step in counts if n in step)} {n}"
        for n in names
    ]
    return f"probes the target answers: {', '.join(parts)}"
