"""Sampling as a greedy search over noisy logits, each row with a noise of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on ``parts`` alone, in every process."""
    text = ":".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise to logits over ``temperature``: their largest is then a draw from the
    softmax. A row's noise comes from its own seed, so that its draws do not depend on its batch.
    """

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self.temperature = temperature
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        size = scores.shape[-1]
        uniform = torch.stack([torch.rand(size, generator=g) for g in self.generators])
        noise = -torch.log(-torch.log(uniform.clamp(min=1e-20, max=1 - 1e-7)))
        return scores / self.temperature + noise.to(scores)
