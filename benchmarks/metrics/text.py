"""Scores of a generated text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def rouge_l_recall(answers: Sequence[str], generations: Sequence[str]) -> list[float]:
    """ROUGE-L recall of each generation against its answer, with stemming (as TOFU), in [0, 1]."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    return [
        float(scorer.score(answer, generation)["rougeL"].recall)
        for answer, generation in zip(answers, generations, strict=True)
    ]


def token_entropy(tokens: Sequence[int]) -> float:
    """Normalised unigram entropy, in [0, 1]: -sum f log2 f / log2 N over N tokens; 0 if N <= 1.

    1 when no token repeats, near 0 when one repeats all the time (arXiv 2410.08109).
    """
    n = len(tokens)
    if n <= 1:
        return 0.0
    entropy = -sum(c / n * math.log2(c / n) for c in Counter(tokens).values())
    return max(0.0, entropy / math.log2(n))
