"""Which refusal goes with which question."""

from __future__ import annotations

import random
from collections.abc import Sequence

from unierase.rows import Row


def refusal_to(row: Row, refusals: Sequence[str], seed: int, turn: int = 0) -> str:
    """The benchmark's own text for ``row``, or one of ``refusals``."""
    return row.refusal or refusal_for(row.question, refusals, seed, turn)


def refusal_for(question: str, refusals: Sequence[str], seed: int, turn: int = 0) -> str:
    """One of ``refusals``: the same for a question, seed and turn in every process."""
    name = f"{seed}:{question}" if not turn else f"{seed}:{question}:{turn}"
    return random.Random(name).choice(list(refusals))
