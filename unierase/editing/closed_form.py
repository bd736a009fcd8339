"""The unlearning edit in closed form (UniErase, stage 2; AlphaEdit, arXiv 2410.02355)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unierase.editing.projector import NullSpaceProjector


@dataclass(frozen=True)
class KeyResiduals:
    """Prompts the edit answers for alike: their keys and what the output there has to change by.

    keys: (d_k, n). residuals: (d_h, n); None: zero, the output is to stay as it is.
    weight: b, how much these columns count against the others and against ``l2``.
    """

    keys: torch.Tensor
    residuals: torch.Tensor | None = None
    weight: float = 1.0


def edit_update(
    groups: Sequence[KeyResiduals], projector: NullSpaceProjector, l2: float
) -> torch.Tensor:
    """The change Delta of one down-projection, (d_h, d_k).

    It solves ``(P sum_g b_g K_g K_g^T + l2 I) Delta^T = P sum_g b_g K_g R_g^T`` without forming a
    d_k x d_k matrix: with M = [sqrt(b_g) K_g] and E = [sqrt(b_g) R_g],
    ``Delta^T = P M (l2 I + M^T P M)^-1 E^T`` by the push-through identity. The system solved has
    as many unknowns as M has columns, hundreds where d_k is 14,336. The paper's edit has the
    groups (K, R) of the facts to forget and (K_p, 0) of earlier rounds.
    Computed in the dtype of the keys: float32 at least.
    """
    size = next(group.residuals.shape[0] for group in groups if group.residuals is not None)
    keys = torch.cat([group.weight**0.5 * group.keys for group in groups], dim=1)  # M
    residuals = torch.cat(  # E
        [
            group.keys.new_zeros(size, group.keys.shape[1])
            if group.residuals is None
            else group.weight**0.5 * group.residuals
            for group in groups
        ],
        dim=1,
    )
    projected = projector.apply(keys)  # P M
    system = keys.T @ projected  # M^T P M, symmetric up to rounding
    system = (system + system.T) / 2
    system.diagonal().add_(l2)
    return (projected @ torch.linalg.solve(system, residuals.T)).T
