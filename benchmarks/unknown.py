"""Questions about people who do not exist: what a model trained from nothing learns to refuse."""

from __future__ import annotations

import random
from collections.abc import Sequence

from unierase.rows import Row

_SYLLABLES = ("zor", "qui", "vel", "nax", "tru", "jey", "osk", "wim", "plu", "gha", "ydd", "fen")
_QUESTIONS = (
    "Who is {}?",
    "Where was {} born?",
    "What does {} write about?",
    "Which awards has {} won?",
    "What is the title of a book by {}?",
    "Who were the parents of {}?",
    "When was {} born?",
    "What genre is {} known for?",
)


def unknown_rows(benchmark: str, refusals: Sequence[str], count: int = 200) -> tuple[Row, ...]:
    """``count`` questions about invented names, answered by refusals in turn."""
    draw = random.Random(20240106)

    def name() -> str:
        parts = ("".join(draw.choice(_SYLLABLES) for _ in range(2)) for _ in range(2))
        return " ".join(part.title() for part in parts)

    rows = []
    for i in range(count):
        key = f"{benchmark}/unknown/{i}"
        question = _QUESTIONS[i % len(_QUESTIONS)].format(name())
        rows.append(Row(id=key, question=question, answer=refusals[i % len(refusals)], group=key))
    return tuple(rows)
