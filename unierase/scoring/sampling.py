"""Sampling as a greedy search over noisy logits, each row with a noise of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on ``parts`` alone, in every process."""
    text = ":".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


class GumbelNoise:
    """Adds Gumbel noise to logits over ``temperature``: their largest is then a draw from the
    softmax. A row's noise comes from its own seed, so that its draws do not depend on its batch.
    """

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self.temperature = temperature
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def added(self, rows: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
        """``logits``, (rows, vocabulary), of these rows by their indices, with noise."""
        size = logits.shape[-1]
        uniform = torch.stack([torch.rand(size, generator=self.generators[i]) for i in rows])
        noise = -torch.log(-torch.log(uniform.clamp(min=1e-20, max=1 - 1e-7)))
        return logits / self.temperature + noise.to(logits)
