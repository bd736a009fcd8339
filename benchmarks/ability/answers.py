"""What accuracy does not tell of generated answers: refusals, lengths, degenerate text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean

from benchmarks.ability.harness_model import Said
from benchmarks.metrics.auxiliary import SentenceEncoder

REFUSES, RESEMBLES = 0.75, 0.5
"""Similarity to a refusal above which an answer is one, and above which it counts in part."""
LONGEST_PERIOD = 16
"""Words of the longest phrase whose repetition is looked for."""


def answer_measures(
    said: Sequence[Said], refusals: Sequence[str], encoder: SentenceEncoder | None
) -> dict[str, float | None]:
    """Idk, Len, and the shares of empty and repeated answers; None where nothing was generated.

    For a task that compares likelihoods, Idk is the share of questions to which [UNL] is the
    likeliest beginning.
    """
    texts = [one.text for one in said if one.text is not None]
    if not texts:
        return {"idk": fmean(one.emits_unl for one in said), "length": None} | dict.fromkeys(
            ("empty", "repeated")
        )
    refused = refusal_degrees(texts, refusals, encoder)
    degrees = [1.0 if one.emits_unl else d for one, d in zip(said, refused, strict=True)]
    return {
        "idk": fmean(degrees),
        "length": fmean(one.tokens or 0 for one in said),
        "empty": fmean(not one.emits_unl and not (one.text or "").strip() for one in said),
        "repeated": fmean(is_repeated(text) for text in texts),
    }


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


def is_repeated(text: str) -> bool:
    """Whether at least half of a text, and four times or more, is one phrase over and over."""
    words = text.split()
    for period in range(1, min(LONGEST_PERIOD, len(words) // 4) + 1):
        same = 0
        while same < len(words) - period and words[-1 - same] == words[-1 - same - period]:
            same += 1
        repeated = same + period
        if repeated >= 4 * period and 2 * repeated >= len(words):
            return True
    return False
