"""Which retain row goes with which forget row."""

from __future__ import annotations

import random


def paired_retain_rows(forget: int, retain: int, epoch: int, seed: int) -> list[int]:
    """Index of the retain row for each of ``forget`` rows in ``epoch``.

    Retain rows are drawn without replacement until all were used, across epochs. A function of
    its arguments alone: never of batch size, workers or devices.
    """
    chosen = []
    for position in range(epoch * forget, (epoch + 1) * forget):
        deck, card = divmod(position, retain)
        order = list(range(retain))
        random.Random(f"{seed}:{deck}").shuffle(order)
        chosen.append(order[card])
    return chosen
