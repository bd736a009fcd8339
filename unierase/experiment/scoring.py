"""Scores of models that do not change: computed once, kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unierase.files import build_folder, content_key, read_json_lines, write_json_lines
from unierase.rows import Row
from unierase.scores import Evaluation, RowScores, SetScores, TaskScores, scores_from_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from unierase.models.language_model import LanguageModel


def write_scores(folder: Path, scores: SetScores) -> None:
    """One file of JSON lines for each set."""
    for name, rows in scores.items():
        write_json_lines(folder / f"{name}.jsonl", [row.to_json() for row in rows])


def read_scores(folder: Path) -> SetScores:
    """What ``write_scores`` wrote."""
    return {
        path.stem: [scores_from_json(values) for values in read_json_lines(path)]
        for path in sorted(folder.glob("*.jsonl"))
    }


class CachedScores:
    """Scores of one fixed model. The model is loaded only if a row was never scored before.

    model_key, evaluation: with the rows, everything that decides the scores.
    """

    def __init__(
        self,
        load: Callable[[], LanguageModel],
        model_key: str,
        evaluation: Evaluation,
        cache_dir: Path,
    ) -> None:
        self.load = load
        self.model_key = model_key
        self.evaluation = evaluation
        self.cache_dir = cache_dir
        self.known: dict[tuple[str, str], RowScores | TaskScores] = {}

    def score(self, sets: Mapping[str, Sequence[Row]]) -> SetScores:
        """Scores of ``sets``; rows scored before, in the same role, are looked up."""
        chosen = self.evaluation.select(sets)
        missing = {
            name: [row for row in rows if (name, row.id) not in self.known]
            for name, rows in chosen.items()
        }
        missing = {name: rows for name, rows in missing.items() if rows}
        if missing:
            folder = self._folder(missing)
            build_folder(folder, lambda path: self._build(path, missing))
            for name, rows in read_scores(folder).items():
                self.known.update({(name, row.id): row for row in rows})
        return {name: [self.known[name, row.id] for row in rows] for name, rows in chosen.items()}

    def _build(self, folder: Path, sets: Mapping[str, Sequence[Row]]) -> None:
        write_scores(folder, self.evaluation.score(self.load(), sets))

    def _folder(self, sets: Mapping[str, Sequence[Row]]) -> Path:
        key = content_key(
            {
                "model": self.model_key,
                "evaluation": dict(self.evaluation.settings()),
                "rows": {
                    name: [
                        [r.id, r.question, r.answer, r.paraphrased_answer, *r.perturbed_answers]
                        for r in rows
                    ]
                    for name, rows in sets.items()
                },
            }
        )
        return self.cache_dir / "scores" / key
