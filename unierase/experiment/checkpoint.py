"""What a killed run goes on from: finished steps, and the model carried between them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unierase.experiment.scoring import read_scores, write_scores
from unierase.experiment.tracking import Example
from unierase.files import is_complete, read_json, replace_folder, write_json
from unierase.request import State
from unierase.scores import SetScores, answer_sets

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel
    from unierase.models.sources import ModelSource


STATE = "state.safetensors"
EXAMPLES = 5
"""Questions of each set that are shown with their answers before and after."""


def write_state(path: Path, state: State) -> None:
    """Write what a method hands on as safetensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in state.items()}, str(path))


def read_state(path: Path) -> State:
    """The state of a method as ``RunFolder`` keeps it."""
    from safetensors.torch import load_file

    return dict(load_file(str(path)))


class RunFolder:
    """The files of a run that resuming needs. Every folder is complete or not there.

    steps/<n>: result of a finished step and its scores. ability/<n>: of each task its result.
    carried/<n>: model and state after step n, kept until step n + 1 is finished and ability is
    measured. work/<n>: the method's own, kept until step n is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def step(self, number: int) -> dict[str, Any] | None:
        """What was recorded of step ``number``, or None if it is not finished."""
        path = self._step(number)
        return dict(read_json(path / "step.json")) if is_complete(path) else None

    def before(self, name: str) -> Path:
        """Where the target's scores on the sets of step ``name`` lie."""
        return self.folder / "before" / name.replace(" ", "-")

    def examples(self, name: str, number: int) -> list[Example]:
        """The first questions of every set of step ``number``, called ``name``, with what was
        answered before and after it."""
        before = answer_sets(read_scores(self.before(name)))
        after = answer_sets(read_scores(self._step(number)))
        return [
            Example(set_name, now.question, now.answer, then.generation, now.generation)
            for set_name, rows in after.items()
            for then, now in list(zip(before.get(set_name, ()), rows, strict=False))[:EXAMPLES]
        ]

    def _step(self, number: int) -> Path:
        return self.folder / "steps" / f"{number:02d}"

    def write_step(self, number: int, values: dict[str, Any], scores: SetScores) -> None:
        def build(path: Path) -> None:
            write_json(path / "step.json", values)
            write_scores(path, scores)

        replace_folder(self._step(number), build)

    def carry(self, number: int, lm: LanguageModel, state: State) -> None:
        """Keep model and state after step ``number``."""

        def build(path: Path) -> None:
            lm.save(path / "model")
            write_state(path / STATE, state)

        replace_folder(self._carried(number), build)

    def carried(
        self, number: int, source: ModelSource, device: str
    ) -> tuple[LanguageModel, State] | None:
        """Model and state after step ``number``, or None."""
        path = self._carried(number)
        if not is_complete(path):
            return None
        return source.load(path / "model", device), read_state(path / STATE)

    def has_carried(self, number: int) -> bool:
        """Whether model and state after step ``number`` are kept."""
        return is_complete(self._carried(number))

    def ability(self, number: int) -> Path:
        """Where the results of ability tasks after step ``number`` lie."""
        return self.folder / "ability" / f"{number:02d}"

    def work(self, number: int) -> Path:
        """Where the method keeps what it goes on from when it is killed in step ``number``."""
        return self.folder / "work" / f"{number:02d}"

    def drop_work(self, number: int) -> None:
        """Delete what a finished step kept for itself."""
        shutil.rmtree(self.work(number), ignore_errors=True)

    def drop_carried(self, number: int) -> None:
        """Delete what was kept after step ``number``."""
        shutil.rmtree(self._carried(number), ignore_errors=True)

    @property
    def model(self) -> Path:
        """The unlearned model, where it is kept."""
        return self.folder / "model"

    def has_model(self) -> bool:
        return is_complete(self.model)

    def keep_model(self, lm: LanguageModel, state: State) -> None:
        """Keep the unlearned model for good, and beside it the state its method left."""

        def build(path: Path) -> None:
            lm.save(path)
            write_state(path / STATE, state)

        replace_folder(self.model, build)

    def finish(self) -> None:
        """Delete what only a run that goes on needs, and what kills left of it."""
        for name in ("carried", "work"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def clear(self) -> None:
        """Forget all steps and the model they led to."""
        self.finish()
        for name in ("steps", "ability", "model"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _carried(self, number: int) -> Path:
        return self.folder / "carried" / f"{number:02d}"
