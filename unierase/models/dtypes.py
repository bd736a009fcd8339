"""The types weights may have, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unierase.errors import invalid_choice

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")


def torch_dtype(option: str, name: str) -> torch.dtype:
    """The type of this name. Raises a UserError if ``name``, the value of ``option``, is none of
    ``DTYPES``."""
    import torch

    if name not in DTYPES:
        raise invalid_choice(option, name, DTYPES)
    found: torch.dtype = getattr(torch, name)
    return found
