"""Which refusal goes with which question."""

from __future__ import annotations

import random
from collections.abc import Sequence


def refusal_for(question: str, refusals: Sequence[str], seed: int, turn: int = 0) -> str:
    """One of ``refusals``: the same for a question, seed and turn in every process."""
    name = f"{seed}:{question}" if not turn else f"{seed}:{question}:{turn}"
    return random.Random(name).choice(list(refusals))
