"""Target models: a base model taught a benchmark's rows, cached by everything that decides it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unierase.errors import UserError
from unierase.files import build_folder, content_key, is_complete, write_json
from unierase.models.finetune import FinetuneRecipe, finetune
from unierase.models.sources import ModelSource
from unierase.rows import BenchmarkData, Row

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

log = logging.getLogger(__name__)

RECIPE_VERSION = 1
"""Raise it when the code that makes targets changes its result: older caches are then unused."""


@dataclass(frozen=True)
class TargetModels:
    """Makes the target (taught all rows) and retrained models (taught the retain rows only).

    published: hub ids of checkpoints that others finetuned, by "<data>/full" and
        "<data>/<name of the retain split>"; used where the data are the whole benchmark.
    """

    source: ModelSource
    recipe: FinetuneRecipe
    data: BenchmarkData
    published: Mapping[str, str]
    cache_dir: Path
    device: str

    def target(self) -> LanguageModel:
        """The target, loaded afresh."""
        return self._load(self.data.lessons, "full")

    def retrained(self, rows: tuple[Row, ...]) -> LanguageModel:
        """The model that was taught what ``rows``, all that is retained, are about, and nothing
        else."""
        unknown = {row.id for row in rows} - {row.id for row in self.data.full}
        if unknown:
            raise UserError(f"retrain: rows that are not in the data: {sorted(unknown)[:3]}")
        if not self.data.lessons:
            raise UserError(
                f"data={self.data.name}: its target was taught nothing, so none can be retrained "
                "without it; use data.teach=true"
            )
        kept = self._lessons_left(rows)
        name = f"retain{100 - int(self.data.split[-2:])}" if kept == self.data.retain else None
        return self._load(kept, name)

    def target_key(self) -> str:
        """The cache key of the target."""
        return self._key(self.data.lessons)

    def retrained_key(self, rows: Sequence[Row]) -> str:
        """The cache key of ``retrained(rows)``."""
        return self._key(self._lessons_left(rows))

    def has_target(self) -> bool:
        """Whether the target can be loaded without training."""
        return not self.data.lessons or is_complete(self._folder(self.data.lessons))

    def has_retrained(self, rows: Sequence[Row]) -> bool:
        """Whether ``retrained(rows)`` can be loaded without training."""
        return is_complete(self._folder(self._lessons_left(rows)))

    def _lessons_left(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """What is taught to a model that is to know ``rows`` of the benchmark only."""
        ids = {row.id for row in rows}
        gone = [row for row in self.data.full if row.id not in ids]
        groups = {row.group for row in gone} - {row.group for row in rows}
        lost = {row.id for row in gone}
        return tuple(r for r in self.data.lessons if r.id not in lost and r.group not in groups)

    def _key(self, rows: Sequence[Row]) -> str:
        """The cache key of the model taught ``rows``; also names it in score caches."""
        name = "full" if rows == self.data.lessons else None
        if published := self._published(name):
            return content_key({"published": published, "source": dict(self.source.identity())})
        taught = [*rows, *self._general()]
        return content_key(
            {
                "version": RECIPE_VERSION,
                "source": dict(self.source.identity()),
                "recipe": self.recipe.identity(),
                "rows": [[row.question, row.answer] for row in taught],
                "texts": content_key(self._texts()),
            }
        )

    def _published(self, name: str | None) -> str | None:
        if self.data.notes or name is None:  # a restricted benchmark is not the published one
            return None
        return self.published.get(f"{self.data.name}/{name}")

    def _folder(self, rows: Sequence[Row]) -> Path:
        return self.cache_dir / "models" / self._key(rows)

    def _general(self) -> tuple[Row, ...]:
        return self.data.general if self.source.from_scratch else ()

    def _texts(self) -> list[str]:
        """What a tokenizer is trained on: the same texts for target and retrained models."""
        if not self.source.from_scratch:
            return []
        rows = dict.fromkeys((*self.data.full, *self.data.lessons, *self._general()))
        return [text for row in rows for text in (row.question, row.answer)] + [*self.data.refusals]

    def _untaught(self) -> LanguageModel:
        if self.source.from_scratch:
            raise UserError(
                "data.teach=false: this model knows nothing of itself; use data.teach=true"
            )
        return self.source.base((), self.device)

    def _load(self, rows: tuple[Row, ...], name: str | None) -> LanguageModel:
        if published := self._published(name):
            return self.source.load(published, self.device)
        if not rows:
            return self._untaught()

        def build(folder: Path) -> None:
            lm = self.source.base(self._texts(), self.device)
            what = "target" if name == "full" else "retrained model"
            log.info("Teaching the %s %d rows (once; cached afterwards)", what, len(rows))
            taught = (*rows, *self._general())
            report = finetune(lm, taught, self.recipe, what, work_dir)
            lm.save(folder)
            write_json(folder / "training.json", report)
            shutil.rmtree(work_dir, ignore_errors=True)

        # Beside the entries, not in one: what is half-done there is thrown away.
        work_dir = self.cache_dir / "training" / self._key(rows)
        return self.source.load(build_folder(self._folder(rows), build), self.device)
