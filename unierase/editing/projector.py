"""The projector onto the null space of general knowledge."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class NullSpaceProjector:
    """P, the orthogonal projector onto the directions in which general text has little energy.

    Held as the smaller of the two eigenvector blocks: P = Q Q^T, or P = I - Q Q^T when
    ``complement`` is set. ``basis`` is Q, (d_k, m) with orthonormal columns.
    """

    basis: torch.Tensor
    complement: bool

    @staticmethod
    def of(covariance: torch.Tensor, threshold: float) -> NullSpaceProjector:
        """Eigenvectors of C0 = E[k k^T], (d_k, d_k), with eigenvalue below ``threshold``.

        The cut is in absolute units of the key activations (AlphaEdit: 0.02 for Llama-3-8B).
        """
        values, vectors = torch.linalg.eigh(covariance)
        return NullSpaceProjector._onto(vectors, int((values < threshold).sum()))

    @staticmethod
    def of_energy(covariance: torch.Tensor, share: float) -> NullSpaceProjector:
        """The eigenvectors of least energy that hold at most ``share`` of the trace of C0.

        Free of units: the same share suits models whose keys are of another size.
        """
        values, vectors = torch.linalg.eigh(covariance)
        energy = torch.cumsum(values.clamp(min=0), 0)
        return NullSpaceProjector._onto(vectors, int((energy <= share * energy[-1]).sum()))

    @staticmethod
    def _onto(vectors: torch.Tensor, count: int) -> NullSpaceProjector:
        """Onto the first ``count`` columns of an orthogonal matrix."""
        if count <= vectors.shape[0] // 2:
            return NullSpaceProjector(vectors[:, :count].contiguous(), complement=False)
        return NullSpaceProjector(vectors[:, count:].contiguous(), complement=True)

    @staticmethod
    def identity(size: int) -> NullSpaceProjector:
        """The projector that protects nothing (ablation: no null space)."""
        return NullSpaceProjector(torch.zeros(size, 0), complement=True)

    @property
    def dimensions(self) -> int:
        """Number of directions an edit may use (the rank of P)."""
        size, kept = self.basis.shape
        return size - kept if self.complement else kept

    def apply(self, vectors: torch.Tensor) -> torch.Tensor:
        """P times ``vectors``, (d_k, n)."""
        basis = self.basis.to(vectors)
        inside = basis @ (basis.T @ vectors)
        return vectors - inside if self.complement else inside

    def dense(self) -> torch.Tensor:
        """P as a matrix, (d_k, d_k)."""
        return self.apply(torch.eye(self.basis.shape[0], dtype=self.basis.dtype))
