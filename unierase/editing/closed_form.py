"""The unlearning edit in closed form (UniErase, stage 2; AlphaEdit, arXiv 2410.02355)."""

from __future__ import annotations

import torch

from unierase.editing.projector import NullSpaceProjector


def edit_update(
    keys: torch.Tensor,
    residuals: torch.Tensor,
    projector: NullSpaceProjector,
    l2: float,
    previous_keys: torch.Tensor | None = None,
    retain_keys: torch.Tensor | None = None,
    retain_weight: float = 0.0,
) -> torch.Tensor:
    """The change Delta of one down-projection, (d_h, d_k).

    It solves ``(P (K K^T + K_p K_p^T + b K_r K_r^T) + l2 I) Delta^T = P K R^T`` without forming
    a d_k x d_k matrix: with M = [K, K_p, sqrt(b) K_r] and E the columns of M that are K,
    ``Delta^T = P M (l2 I + M^T P M)^-1 E R^T`` by the push-through identity. The system solved has
    as many unknowns as M has columns, hundreds where d_k is 14,336.

    keys: K, (d_k, n), the keys of the facts to forget.
    residuals: R, (d_h, n), what the layer's output has to change by at those keys.
    previous_keys: K_p, (d_k, n_p), keys of earlier rounds, not to be disturbed.
    retain_keys: K_r, (d_k, n_r), keys of retained prompts, weighted by ``retain_weight`` (b).
    Computed in the dtype of ``keys``: float32 at least.
    """
    columns = [keys]
    if previous_keys is not None and previous_keys.shape[1]:
        columns.append(previous_keys)
    if retain_keys is not None and retain_keys.shape[1] and retain_weight:
        columns.append(retain_weight**0.5 * retain_keys)
    all_keys = torch.cat(columns, dim=1)  # M
    projected = projector.apply(all_keys)  # P M
    system = all_keys.T @ projected  # M^T P M, symmetric up to rounding
    system = (system + system.T) / 2
    system.diagonal().add_(l2)
    right = torch.zeros(all_keys.shape[1], residuals.shape[0]).to(residuals)  # E R^T
    right[: keys.shape[1]] = residuals.T
    return (projected @ torch.linalg.solve(system, right)).T
