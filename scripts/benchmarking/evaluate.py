"""The evaluation of a split, against each metric in a loop of its own.

plain: as evaluations are usually written: a loop over the rows for every metric, every paraphrased
and perturbed answer a row of its own behind its question, rows as they come, logits at all
positions.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarking.measure import composed

if TYPE_CHECKING:
    import torch

    from unierase.models.language_model import LanguageModel
    from unierase.rows import Row
    from unierase.scores import RowScores

BATCH_ROWS = 8
"""Of the plain way, in one forward pass."""


def bench_evaluate(model: str, data: str, limit: int | None) -> list[dict[str, Any]]:
    """Seconds for all metrics of a batch request's sets, both ways, of the target model.

    The target is taught first where the cache has none: how long answers are is part of the
    time. limit: rows of each set.
    """
    from unierase.experiment.run import Experiment
    from unierase.scores import answer_sets

    asked = (f"model={model}", f"data={data}", f"evaluation.limit={limit or 'null'}")
    cfg = composed(*asked, "evaluation.privacy=true")
    with TemporaryDirectory() as folder:
        experiment = Experiment(cfg, Path(folder))
    lm, evaluation = experiment.targets.target(), experiment.evaluation
    sets = evaluation.select(experiment.steps[0].sets)
    some = {name: own[:2] for name, own in sets.items()}
    evaluation.score(lm, some)  # a first pass takes longer than any later one
    with _forward_seconds(lm.model) as inside:
        start = time.perf_counter()
        scores = answer_sets(evaluation.score(lm, sets))
        seconds = time.perf_counter() - start
    start = time.perf_counter()
    plain = _plain_scores(lm, sets, cfg.evaluation.max_new_tokens)
    plain_seconds = time.perf_counter() - start
    row = {
        "model": model,
        "data": data,
        "rows": sum(len(own) for own in sets.values()),
        "seconds": round(seconds, 1),
        "plain_seconds": round(plain_seconds, 1),
        "times_faster": round(plain_seconds / seconds, 2),
        "share_in_forward": round(inside() / seconds, 3),
        "largest_difference": _largest_difference(scores, plain),
    }
    print(json.dumps(row), flush=True)
    return [row]


@contextmanager
def _forward_seconds(model: Any) -> Iterator[Callable[[], float]]:
    """Seconds spent inside the model's forward passes so far."""
    spent = [0.0, 0.0]

    def enter(*_: Any) -> None:
        spent[1] = time.perf_counter()

    def leave(*_: Any) -> None:
        spent[0] += time.perf_counter() - spent[1]

    hooks = [model.register_forward_pre_hook(enter), model.register_forward_hook(leave)]
    try:
        yield lambda: spent[0]
    finally:
        for hook in hooks:
            hook.remove()


PlainScores = dict[tuple[str, str], dict[str, Any]]
"""By set and row, by the name of the score."""


def _plain_scores(
    lm: LanguageModel, sets: Mapping[str, Sequence[Row]], max_new_tokens: int
) -> PlainScores:
    from benchmarks.metrics.membership import loss_score, lowest_mean, zlib_score
    from benchmarks.metrics.memorisation import exact_memorisation, extraction_strength

    found: PlainScores = {(n, row.id): {} for n, rows in sets.items() for row in rows}

    def loop(name: str, answer_of: Callable[[Row], str | None], score: Callable[..., Any]) -> None:
        for set_name, rows in sets.items():
            asked = [(row, text) for row in rows if (text := answer_of(row)) is not None]
            for start in range(0, len(asked), BATCH_ROWS):
                batch = asked[start : start + BATCH_ROWS]
                pairs = [(row.question, text) for row, text in batch]
                for (row, text), logits in zip(batch, _answer_logits(lm, pairs), strict=True):
                    targets = lm.encode_answer(text)
                    found[set_name, row.id][name] = score(logits, targets, text)

    def log_p(logits: torch.Tensor, targets: Sequence[int]) -> torch.Tensor:
        return logits.log_softmax(-1)[range(len(targets)), list(targets)]

    def own(row: Row) -> str:
        return row.answer

    def loss(logits: torch.Tensor, targets: Sequence[int], text: str) -> float:
        return float(-log_p(logits, targets).mean())

    def hits(logits: torch.Tensor, targets: Sequence[int]) -> list[bool]:
        return [a == b for a, b in zip(logits.argmax(-1).tolist(), targets, strict=True)]

    def standardised(logits: torch.Tensor, targets: Sequence[int], text: str) -> float:
        values = logits.log_softmax(-1)
        weights = values.exp()
        mean = (weights * values).sum(-1)
        deviation = ((weights * (values - mean[:, None]) ** 2).sum(-1)).sqrt()
        return lowest_mean(((log_p(logits, targets) - mean) / deviation).tolist())

    loop("probability", own, loss)
    loop("paraphrased", lambda row: row.paraphrased_answer, loss)
    most = max(len(row.perturbed_answers) for rows in sets.values() for row in rows)
    for i in range(most):
        loop(f"perturbed {i}", lambda row, i=i: dict(enumerate(row.perturbed_answers)).get(i), loss)  # type: ignore[misc]
    loop("exact_memorisation", own, lambda x, t, _: exact_memorisation(hits(x, t)))
    loop("extraction_strength", own, lambda x, t, _: extraction_strength(hits(x, t)))
    loop("loss", own, lambda x, t, _: loss_score(log_p(x, t).tolist()))
    loop("zlib", own, lambda x, t, text: zlib_score(log_p(x, t).tolist(), text))
    loop("min_k", own, lambda x, t, _: lowest_mean(log_p(x, t).tolist()))
    loop("min_k_plus_plus", own, standardised)
    for set_name, rows in sets.items():  # ROUGE-L, entropy and length
        for start in range(0, len(rows), BATCH_ROWS):
            batch = rows[start : start + BATCH_ROWS]
            for row, ids in zip(batch, _generated(lm, batch, max_new_tokens), strict=True):
                end = next((n for n, token in enumerate(ids) if token in lm.stop_ids), len(ids))
                found[set_name, row.id]["said"] = lm.tokenizer.decode(
                    ids[:end], skip_special_tokens=True
                ).strip()
    return found


def _answer_logits(lm: LanguageModel, pairs: Sequence[tuple[str, str]]) -> list[torch.Tensor]:
    """Logits that predict each answer's tokens, out of logits at every position."""
    import torch

    from unierase.scoring.batching import left_pad

    answers = [lm.encode_answer(answer) for _, answer in pairs]
    prompts = [lm.encode_prompt(question).ids for question, _ in pairs]
    inputs = left_pad(
        [(*p, *a) for p, a in zip(prompts, answers, strict=True)], lm.pad_id, lm.device
    )
    with torch.inference_mode():
        logits = lm.model(**inputs, use_cache=False).logits.float()
    return [row[-len(answer) - 1 : -1] for row, answer in zip(logits, answers, strict=True)]


def _generated(lm: LanguageModel, rows: Sequence[Row], max_new_tokens: int) -> list[list[int]]:
    """New tokens of each row, until the last of them is finished."""
    import torch

    from unierase.scoring.batching import left_pad

    prompts = [lm.encode_prompt(row.question).ids for row in rows]
    inputs = left_pad(prompts, lm.pad_id, lm.device)
    del inputs["position_ids"]
    with torch.inference_mode():
        output = lm.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=list(lm.stop_ids),
            pad_token_id=lm.pad_id,
        )
    new: list[list[int]] = output[:, inputs["input_ids"].shape[1] :].tolist()
    return new


def _largest_difference(
    scores: Mapping[str, Sequence[RowScores]], plain: PlainScores
) -> dict[str, float]:
    """Of every score, between the two ways; of texts, the share that differs."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    texts = []
    for name, rows in scores.items():
        for row in rows:
            other = plain[name, row.id]
            ours = {
                "probability": row.loss,
                "exact_memorisation": row.exact_memorisation,
                "extraction_strength": row.extraction_strength,
                **(row.membership or {}),
                **{f"perturbed {i}": loss for i, loss in enumerate(row.perturbed_losses)},
            }
            if row.paraphrased_loss is not None:
                ours["paraphrased"] = row.paraphrased_loss
            for key, value in ours.items():
                assert value is not None
                pairs.setdefault(key.split()[0], []).append((value, other[key]))
            texts.append(row.generation != other["said"])
    found = {key: max(abs(a - b) for a, b in both) for key, both in pairs.items()}
    return {**found, "generations": sum(texts) / len(texts)}
