"""What a model can still do, task by task; a task that was finished is not asked again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from tqdm.auto import tqdm

from unierase.files import build_folder, content_key, is_complete, read_json

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

RESULT = "task.json"
"""Not a name that records of runs have."""


class AbilityTasks(Protocol):
    """Tasks that a model is asked, one result each."""

    @property
    def tasks(self) -> Sequence[str]: ...

    def notes(self) -> list[str]:
        """What is not asked in full."""

    def settings(self, name: str) -> Mapping[str, Any]:
        """Everything that decides the result of task ``name`` besides the model."""

    def measure(
        self,
        name: str,
        lm: LanguageModel,
        refusals: Sequence[str],
        cache_dir: Path,
        folder: Path,
    ) -> None:
        """Write ``RESULT``, with ``accuracy``, to ``folder``."""


class Abilities:
    """``tasks`` as one experiment asks them.

    refusals: what answers are compared with to see whether a model refuses.
    """

    def __init__(self, tasks: AbilityTasks, refusals: Sequence[str], cache_dir: Path) -> None:
        self.tasks, self.refusals, self.cache_dir = tasks, refusals, cache_dir

    def __bool__(self) -> bool:
        return bool(self.tasks.tasks)

    def before(self, load: Callable[[], LanguageModel], model_key: str) -> dict[str, Any]:
        """The results of a model that does not change, kept for all runs."""

        def folder(name: str) -> Path:
            settings = {"model": model_key, "refusals": list(self.refusals)}
            key = content_key({**settings, **self.tasks.settings(name)})
            return self.cache_dir / "ability" / "before" / key

        return self._results(load, folder)

    def after(self, load: Callable[[], LanguageModel], folder: Path) -> dict[str, Any]:
        """The results of a run's model, kept below ``folder``."""
        return self._results(load, lambda name: folder / name)

    def are_in(self, folder: Path) -> bool:
        """Whether all results lie below ``folder``."""
        return all(is_complete(folder / name) for name in self.tasks.tasks)

    def _results(
        self, load: Callable[[], LanguageModel], folder: Callable[[str], Path]
    ) -> dict[str, Any]:
        """Of each task its result, and the mean accuracy. The model is loaded if one is missing."""
        lm: LanguageModel | None = None
        results = {}
        for name in tqdm(self.tasks.tasks, desc="ability", leave=False):
            place = folder(name)
            if not is_complete(place):
                model = lm = lm or load()

                def build(path: Path, name: str = name, model: LanguageModel = model) -> None:
                    self.tasks.measure(name, model, self.refusals, self.cache_dir, path)

                build_folder(place, build)
            results[name] = read_json(place / RESULT)
        return {"tasks": results, "accuracy": fmean(r["accuracy"] for r in results.values())}
