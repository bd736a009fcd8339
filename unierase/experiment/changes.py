"""How much of a model an unlearning method changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel


def parameter_count(lm: LanguageModel) -> int:
    """Number of parameters; tied tensors count once."""
    return sum(parameter.numel() for parameter in lm.model.parameters())


@torch.no_grad()
def changed_share(target: LanguageModel, unlearned: LanguageModel) -> float:
    """Share of parameters that lie in a changed row of their tensor, of the target's parameters.

    By rows (the first dimension), because an edit changes whole rows and rounding may leave some
    of their elements alone; rows that were added, for new tokens, count as changed.
    """
    original = dict(target.model.named_parameters())
    changed = 0
    for name, tensor in unlearned.model.named_parameters():
        before = original.get(name)
        if before is None or before.shape[1:] != tensor.shape[1:]:
            changed += tensor.numel()
            continue
        common = min(len(before), len(tensor))
        per_row = tensor.numel() // len(tensor)
        differs = (before[:common].to(tensor) != tensor[:common]).reshape(common, -1).any(1)
        changed += per_row * (int(differs.sum()) + len(tensor) - common)
    return changed / parameter_count(target)
