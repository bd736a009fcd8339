"""MMLU, five examples before each question, against lm-eval's own way of asking a model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from benchmarking.measure import composed, untaught

SUBJECT_QUESTIONS = 10
BATCH_SIZES = (1, 4, 16)
"""That lm-eval's model is tried with; the fastest counts."""


def bench_ability(model: str, questions: int) -> list[dict[str, Any]]:
    """Seconds per 100 questions, ten of each subject, and how many answers are the same.

    Both get the same requests in plain text and one dtype. Loading, reading the data and the
    first pass do not count.
    """
    from lm_eval.models.huggingface import HFLM

    from benchmarks.ability.harness_model import HarnessModel
    from benchmarks.ability.tasks import TASKS, chosen_rows, loaded

    paths = composed(f"model={model}").paths
    lm, _ = untaught(model)
    lm.model.eval()
    with loaded(TASKS["mmlu"], False, paths.data, Path(paths.cache)) as found:
        tasks = dict(list(found["tasks"].items())[: -(-questions // SUBJECT_QUESTIONS)])
        requests = []
        for name, rows in chosen_rows(tasks, SUBJECT_QUESTIONS, 0).items():
            tasks[name].set_config(key="num_fewshot", value=5)
            tasks[name].set_fewshot_seed(seed=1234)
            tasks[name].build_all_requests(samples=rows)
            requests += tasks[name].instances
    requests = requests[: 4 * questions]

    def timed(answering: Any, asked: list[Any]) -> tuple[float, list[float]]:
        start = time.perf_counter()
        answers = answering.loglikelihood(asked)
        return time.perf_counter() - start, [float(value) for value, _ in answers]

    ours = HarnessModel(lm, chat=False)
    timed(ours, requests[:8])
    seconds, values = timed(ours, requests)
    fours = [requests[i : i + 4] for i in range(0, len(requests), 4)]
    few = [request for four in fours[:: max(1, len(fours) // 20)] for request in four]

    def theirs(size: int) -> Any:
        return HFLM(
            pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=size, max_length=ours.most
        )

    timed(theirs(1), requests[:8])
    best = min(BATCH_SIZES, key=lambda size: timed(theirs(size), few)[0])
    plain_seconds, plain_values = timed(theirs(best), requests)

    def chosen(all_values: list[float]) -> list[int]:
        """Of each question the likeliest choice."""
        fours = [all_values[i : i + 4] for i in range(0, len(all_values), 4)]
        return [four.index(max(four)) for four in fours]

    asked = len(requests) // 4
    same = sum(a == b for a, b in zip(chosen(values), chosen(plain_values), strict=True))
    row = {
        "model": model,
        "questions": asked,
        "dtype": str(lm.model.dtype).removeprefix("torch."),
        "seconds_per_100": round(100 * seconds / asked, 2),
        "lm_eval_seconds_per_100": round(100 * plain_seconds / asked, 2),
        "lm_eval_batch_size": best,
        "times_faster": round(plain_seconds / seconds, 2),
        "same_answers": same,
        "largest_difference": max(abs(a - b) for a, b in zip(values, plain_values, strict=True)),
    }
    print(json.dumps(row), flush=True)
    return [row]
