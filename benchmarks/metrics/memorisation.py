"""How much of an answer a model knows by heart, from one pass over question and answer.

Both read, for every answer token, whether greedy decoding gives it after the true tokens before it.
"""

from __future__ import annotations

from collections.abc import Sequence


def exact_memorisation(greedy: Sequence[bool]) -> float:
    """Share of the tokens that are the likeliest after the true ones (arXiv 2205.10770)."""
    return sum(map(bool, greedy)) / len(greedy)


def extraction_strength(greedy: Sequence[bool]) -> float:
    """1 - k/L, k the shortest prefix after which greedy decoding gives the rest of L tokens
    (Carlini et al., arXiv 2012.07805, as OpenUnlearning has it). 0 where nothing does."""
    known = 0
    for token in reversed(greedy):
        if not token:
            break
        known += 1
    return known / len(greedy)
