"""Texts in a method's state, whose values are tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch

from unierase.request import State


def packed(texts: Sequence[str]) -> torch.Tensor:
    """``texts`` as bytes (JSON, UTF-8), one-dimensional uint8."""
    return torch.tensor(list(json.dumps(list(texts)).encode()), dtype=torch.uint8)


def unpacked(state: State, name: str) -> list[str]:
    """The texts that ``packed`` put into ``state``; none where there are none yet."""
    if name not in state:
        return []
    texts: list[str] = json.loads(bytes(state[name].tolist()).decode())
    return texts


def joined(earlier: Sequence[str], new: Sequence[str]) -> list[str]:
    """Both, each text once, in order."""
    return list(dict.fromkeys([*earlier, *new]))
