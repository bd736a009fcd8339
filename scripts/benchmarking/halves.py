"""Forward and backward passes in bfloat16 on the CPU, against torch's own products."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarking.measure import alone, untaught

WAYS = ("float32", "bfloat16, torch's own products", "bfloat16")


def measured(way: str, model: str, rows: int, tokens: int) -> float:
    """Seconds of one pass forward and back over ``rows`` random sequences of ``tokens``, in a
    process of its own: a kernel once replaced stays so. A first pass, of one row, does not count.
    """
    import torch

    from unierase.bfloat16 import widen_bfloat16_products
    from unierase.memory import keep_freed_memory

    keep_freed_memory()
    if way == "bfloat16":
        widen_bfloat16_products()
    lm, _ = untaught(model)
    kind = torch.float32 if way == "float32" else torch.bfloat16
    network = lm.model.to("cpu", kind).train()
    torch.manual_seed(0)
    ids = torch.randint(0, len(lm.tokenizer), (rows, tokens))
    for batch in (ids[:1], ids):
        start = time.perf_counter()
        network(input_ids=batch, labels=batch).loss.backward()
    return time.perf_counter() - start


def bench_halves(model: str, rows: int, tokens: int) -> list[dict[str, Any]]:
    """Seconds of a pass in each way, and how often the last one fits into the others."""
    seconds = {way: alone(measured, way, model, rows, tokens) for way in WAYS}
    row: dict[str, Any] = {
        "model": model,
        "rows": rows,
        "tokens": tokens,
        "seconds": {way: round(s, 3) for way, s in seconds.items()},
        "speedup": {way: round(s / seconds["bfloat16"], 2) for way, s in seconds.items()},
    }
    print(json.dumps(row), flush=True)
    return [row]
