"""An unlearned model from the directory of its run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unierase.errors import UserError
from unierase.experiment.checkpoint import STATE, RunFolder, read_state

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


def load_unlearned(run: Path, device: str = "cpu") -> LanguageModel:
    """The unlearned model of ``run``, guarded as its method left it.

    Raises a UserError where the run kept none.
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    files = RunFolder(run)
    if not files.has_model():
        raise UserError(f"{run}: no model in it; run it again with run.save_model=true")
    cfg = OmegaConf.load(run / "config.yaml")
    lm = instantiate(cfg.model.source).load(files.model, device)
    restored: LanguageModel = instantiate(cfg.method).restore(lm, read_state(files.model / STATE))
    return restored
