"""Ability: what a model can still do, by lm-eval's tasks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.ability.programs import LAYERS, confinement
from benchmarks.ability.tasks import TASKS, chosen_rows, loaded
from benchmarks.metrics.auxiliary import SentenceEncoder
from unierase.errors import UserError, invalid_choice
from unierase.experiment.ability import RESULT
from unierase.files import write_json, write_json_lines

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

log = logging.getLogger(__name__)

FEWSHOT_SEED = 1234
"""lm-eval's own: its command line shows the same examples."""
SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class Ability:
    """tasks: names of ``TASKS``.

    limits: by task, at most so many rows (of each subject), drawn by seed; null or left out: all.
    shots: by task, examples before a question; left out: the task's own number.
    chat: questions get the model's own format; else they are read as they are.
    max_new_tokens: at most so many, whatever a task allows; null: the task's own.
    allow_code_execution: programs that the model writes may be run (confined).
    data: ``paths.data``; tasks that are not in its folder ``ability`` come from the hub.
    """

    tasks: Sequence[str]
    limits: Mapping[str, int | None]
    shots: Mapping[str, int | None]
    chat: bool
    max_new_tokens: int | None
    batch_tokens: int
    seed: int
    allow_code_execution: bool
    data: str | None
    encoder: SentenceEncoder | None = None

    def __post_init__(self) -> None:
        for name in self.tasks:
            if name not in TASKS:
                raise invalid_choice("evaluation.ability", name, tuple(TASKS))
            if TASKS[name].programs and not self.allow_code_execution:
                raise UserError(
                    f"evaluation.ability={name}: it runs programs that the model writes; "
                    "ability.allow_code_execution=true allows it (docs/ability.md)"
                )
        for option, values in (("limits", self.limits), ("shots", self.shots)):
            least = 1 if option == "limits" else 0
            for name, value in values.items():
                if name not in TASKS:
                    raise invalid_choice(f"ability.{option}", name, tuple(TASKS))
                if value is not None and value < least:
                    raise UserError(f"ability.{option}.{name}={value}: must be at least {least}")

    def notes(self) -> list[str]:
        """What was not asked in full."""
        limits = [(name, self.limits.get(name)) for name in self.tasks]
        return [
            f"{name}: {limit} rows{' of each subject' if TASKS[name].by else ''}"
            for name, limit in limits
            if limit is not None
        ]

    def settings(self, name: str) -> Mapping[str, Any]:
        """Everything that decides the result of task ``name`` besides the model."""
        return {
            "task": name,
            "limit": self.limits.get(name),
            "shots": self.shots.get(name),
            "chat": self.chat,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "encoder": self.encoder.model if self.encoder else None,
        }

    def measure(
        self,
        name: str,
        lm: LanguageModel,
        refusals: Sequence[str],
        cache_dir: Path,
        folder: Path,
    ) -> None:
        """Ask ``lm`` task ``name``; write the result and what was said to each row to ``folder``.

        refusals: what Idk compares answers with.
        """
        from lm_eval import __version__ as version
        from lm_eval.evaluator import evaluate

        from benchmarks.ability.answers import answer_measures
        from benchmarks.ability.harness_model import HarnessModel

        task = TASKS[name]
        if task.programs:
            for layer, held in confinement().items():
                if not held:
                    log.warning("%s: programs are not confined in %s", name, LAYERS[layer])
        model = HarnessModel(lm, self.chat, self.batch_tokens, self.max_new_tokens)
        with loaded(task, self.chat, self.data, cache_dir) as found:
            for one in found["tasks"].values():
                own = one.get_config("num_fewshot") or 0
                shots = self.shots.get(name)
                one.set_config(key="num_fewshot", value=own if shots is None else shots)
                one.set_fewshot_seed(seed=FEWSHOT_SEED)
            results = evaluate(
                model,
                found,
                samples=chosen_rows(found["tasks"], self.limits.get(name), self.seed),
                apply_chat_template=self.chat,
                fewshot_as_multiturn=False,
                confirm_run_unsafe_code=task.programs,
            )
        key = next(iter(results["results"])) if task.name not in results["results"] else task.name
        scores = results["results"][key]
        samples = [
            _sample(leaf, sample, model)
            for leaf, own in results["samples"].items()
            for sample in own
            if sample["filter"] == task.metric.partition(",")[2]
        ]
        write_json_lines(folder / SAMPLES, samples)
        write_json(
            folder / RESULT,
            {
                "accuracy": _number(scores[task.metric]),
                "stderr": _number(scores.get(task.metric.replace(",", "_stderr,"))),
                "rows": len(samples),
                **answer_measures(list(model.said.values()), refusals, self.encoder),
                "metric": task.metric,
                "others": {
                    metric: number
                    for metric, value in scores.items()
                    if metric != task.metric
                    and "stderr" not in metric
                    and (number := _number(value)) is not None
                },
                "task": key,
                "version": results["versions"].get(key),
                "shots": max(results["n-shot"].values()),
                "lm_eval": version,
            },
        )


def _number(value: Any) -> float | None:
    """A plain number, or None for what lm-eval says in its place ("N/A")."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _sample(task: str, sample: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """One row's question and answer, without the examples before it."""
    said = model.said[sample["arguments"][0][0]]
    return {
        "task": task,
        "row": sample["doc_id"],
        "target": sample["target"],
        "said": said.text,
        "tokens": said.tokens,
        "begins_unl": said.begins_unl,
        "responses": sample["filtered_resps"],
        "scores": {name: _number(sample[name]) for name in sample["metrics"]},
    }
