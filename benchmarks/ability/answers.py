"""What accuracy does not tell of generated answers: refusals, lengths, degenerate text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from benchmarks.ability.harness_model import Said
from benchmarks.metrics.auxiliary import SentenceEncoder
from benchmarks.metrics.refusal import refusal_degrees

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
        return {"idk": fmean(one.begins_unl for one in said), "length": None} | dict.fromkeys(
            ("empty", "repeated")
        )
    refused = refusal_degrees(texts, refusals, encoder)
    degrees = [1.0 if one.begins_unl else d for one, d in zip(said, refused, strict=True)]
    return {
        "idk": fmean(degrees),
        "length": fmean(one.tokens or 0 for one in said),
        "empty": fmean(not one.begins_unl and not (one.text or "").strip() for one in said),
        "repeated": fmean(is_repeated(text) for text in texts),
    }


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
