"""Ways to corrupt the input embeddings of a prompt (ECO, arXiv 2406.07933, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from unierase.errors import UserError


class Corruption(Protocol):
    """A function of embeddings; ``strength`` is what the search of ECO varies."""

    def __call__(
        self, embeddings: torch.Tensor, strength: float, generator: torch.Generator
    ) -> torch.Tensor:
        """The corrupted ``embeddings``, (tokens, d_h), a new tensor."""


@dataclass(frozen=True)
class Noise:
    """e + strength * N(0, 1) on the first ``dimensions`` of every token; None: on all."""

    dimensions: int | None

    def __post_init__(self) -> None:
        if self.dimensions is not None and self.dimensions < 1:
            raise UserError(f"method.corruption.dimensions={self.dimensions}: must be at least 1")

    def __call__(
        self, embeddings: torch.Tensor, strength: float, generator: torch.Generator
    ) -> torch.Tensor:
        corrupted = embeddings.clone()
        first = corrupted[:, : self.dimensions]
        # Drawn on the CPU in float32: the same noise on every device and in every type.
        noise = torch.randn(first.shape, generator=generator)
        corrupted[:, : self.dimensions] = (first.float() + strength * noise.to(first.device)).to(
            first
        )
        return corrupted


@dataclass(frozen=True)
class ZeroLargest:
    """The ``strength`` dimensions of largest magnitude of every token are set to 0."""

    def __call__(
        self, embeddings: torch.Tensor, strength: float, generator: torch.Generator
    ) -> torch.Tensor:
        return embeddings.scatter(-1, _largest(embeddings, strength), 0.0)


@dataclass(frozen=True)
class FlipLargest:
    """The ``strength`` dimensions of largest magnitude of every token change their sign."""

    def __call__(
        self, embeddings: torch.Tensor, strength: float, generator: torch.Generator
    ) -> torch.Tensor:
        chosen = _largest(embeddings, strength)
        return embeddings.scatter(-1, chosen, -embeddings.gather(-1, chosen))


def _largest(embeddings: torch.Tensor, count: float) -> torch.Tensor:
    """Indices of the ``count`` largest magnitudes of every row, (tokens, count)."""
    size = embeddings.shape[-1]
    return embeddings.abs().topk(max(0, min(size, round(count))), dim=-1).indices
