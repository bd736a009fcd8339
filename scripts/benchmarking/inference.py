"""What a method that leaves the weights alone costs at every prompt."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate

from benchmarking.measure import NoTargets, composed, untaught

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

METHODS = ("eco", "guardrail", "in_context")


def bench_inference(
    model: str, prompts: int, tokens: int, overrides: Sequence[str]
) -> list[dict[str, Any]]:
    """One row for each method and kind of prompt, against the bare model in the same process.

    Prompts go one by one, each for the first time, on an untaught model: weights do not change
    speed. prompts: of each kind. tokens: generated for each. overrides: of the methods' config.
    """
    from unierase.request import UnlearningRequest, Workbench

    lm, data = untaught(model)
    flagged = [row.question for row in data.forget[:prompts]]
    passed = [row.question for row in data.retain[:prompts]]
    for question in passed[:2]:  # warm up
        _answered(lm, question, tokens)
    rows: list[dict[str, Any]] = []
    for name in METHODS:
        own = [o for o in overrides if name != "in_context"]
        search = ["method.search=null"] if name == "eco" else []
        method = instantiate(composed(f"model={model}", f"method={name}", *search, *own).method)
        request = UnlearningRequest(data.forget, data.retain[:400], data.refusals, 1, 0)
        with TemporaryDirectory() as folder:
            bench = Workbench(Path(folder) / "work", Path(folder) / "cache", NoTargets())
            start = time.perf_counter()
            result = method.unlearn(lm, request, {}, bench)
            learning = time.perf_counter() - start
        size = sum(t.numel() * t.element_size() for t in result.state.values())
        # Restored, it has seen no prompt yet.
        told = method.restore(lm, result.state)
        for kind, questions in (("flagged", flagged), ("not flagged", passed)):
            seconds, plain, same = 0.0, 0.0, 0
            for question in questions:  # by turns: what else the machine does hits both
                took, before = _answered(lm, question, tokens)
                plain += took
                took, answer = _answered(told, question, tokens)
                seconds += took
                same += answer == before
            row = {
                "model": model,
                "method": name,
                "prompts": kind,
                "new_tokens": tokens,
                "seconds_per_prompt": round(seconds / len(questions), 4),
                "bare_seconds_per_prompt": round(plain / len(questions), 4),
                "ratio": round(seconds / plain, 3),
                "state_mib": round(size / 2**20, 2),
                "learning_seconds": round(learning, 2),
                "same_answers": same,
                "of": len(questions),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def _answered(lm: LanguageModel, question: str, tokens: int) -> tuple[float, tuple[int, ...]]:
    """Seconds for one question, and the answer's tokens."""
    from unierase.scoring.generation import generate

    start = time.perf_counter()
    (answer,) = generate(lm, [question], tokens)
    return time.perf_counter() - start, answer.token_ids
