"""Whether a text refuses to answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.metrics.auxiliary import SentenceEncoder

REFUSES, RESEMBLES = 0.75, 0.5
"""Similarity to a refusal above which an answer is one, and above which it counts in part."""


def refusal_degrees(
    texts: Sequence[str], refusals: Sequence[str], encoder: SentenceEncoder | None
) -> list[float]:
    """How much of a refusal each text is, in [0, 1] (the paper's Idk): 1 for one of ``refusals``
    to the letter or nearer to one than 0.75, its similarity from 0.5 on, else 0. Without an
    encoder, to the letter alone (case, spaces and punctuation aside)."""
    plain = {_plain(refusal) for refusal in refusals}
    exact = [float(_plain(text) in plain) for text in texts]
    if encoder is None or not refusals:
        return exact
    nearest = encoder.nearest(texts, refusals)
    return [
        max(same, 1.0 if near > REFUSES else near if near >= RESEMBLES else 0.0)
        for same, near in zip(exact, nearest, strict=True)
    ]


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
