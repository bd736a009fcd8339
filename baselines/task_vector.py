"""Task arithmetic: what learning the forget rows adds is taken away (arXiv 2212.04089)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from unierase.models.finetune import FinetuneRecipe, finetune
from unierase.request import State, Unlearned, UnlearningMethod, UnlearningRequest, Workbench

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


@dataclass(frozen=True)
class TaskVector(UnlearningMethod):
    """theta - scale (theta_forget - theta), theta_forget being taught the forget rows once more.

    recipe: how they are taught.
    """

    name: str
    scale: float
    recipe: FinetuneRecipe

    def unlearn(
        self, lm: LanguageModel, request: UnlearningRequest, state: State, bench: Workbench
    ) -> Unlearned:
        before = {name: tensor.clone() for name, tensor in lm.model.named_parameters()}
        recipe = replace(self.recipe, seed=request.seed)
        report = finetune(lm, request.forget, recipe, self.name, bench.work_dir / "training")
        with torch.no_grad():
            for name, parameter in lm.model.named_parameters():
                old = before[name].float()
                parameter.copy_((old - self.scale * (parameter.float() - old)).to(parameter))
        return Unlearned(lm, report=report)
