"""lm-eval's own task definitions, with nothing changed but where their rows come from."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.local import find_file, read_rows
from unierase.errors import UserError
from unierase.files import build_folder, content_key, write_json_lines, write_text

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

SPLITS = ("test", "dev", "validation", "train")


@dataclass(frozen=True)
class HarnessTask:
    """name: lm-eval's. definition: its file below lm-eval's tasks. metric: what counts as right.
    chat_name: the task's variant for models with a chat format. folder: where its rows lie below
    ``paths.data``/ability, in the hub's layout. config: the one of the hub's that it asks for.
    by: the field that tells its subjects apart, each a config of its own. programs: it runs what
    the model writes."""

    name: str
    definition: str
    metric: str
    folder: str
    config: str = "default"
    chat_name: str | None = None
    by: str | None = None
    programs: bool = False


TASKS: Mapping[str, HarnessTask] = {
    "mmlu": HarnessTask("mmlu", "mmlu/default/_mmlu.yaml", "acc,none", "mmlu", by="subject"),
    "gsm8k": HarnessTask("gsm8k", "gsm8k/gsm8k.yaml", "exact_match,strict-match", "gsm8k", "main"),
    "humaneval": HarnessTask(
        "humaneval",
        "humaneval/humaneval.yaml",
        "pass@1,create_test",
        "humaneval",
        chat_name="humaneval_instruct",
        programs=True,
    ),
    "triviaqa": HarnessTask(
        "triviaqa",
        "triviaqa/default.yaml",
        "exact_match,remove_whitespace",
        "triviaqa",
        "rc.nocontext",
    ),
    "truthfulqa": HarnessTask(
        "truthfulqa_mc1",
        "truthfulqa/truthfulqa_mc1.yaml",
        "acc,none",
        "truthfulqa",
        "multiple_choice",
    ),
}


@contextmanager
def loaded(
    task: HarnessTask, chat: bool, data: str | None, cache_dir: Path
) -> Iterator[dict[str, Any]]:
    """The task as lm-eval loads it: its "tasks", by name, and its "groups".

    data: ``paths.data``; None, or a copy without this task, loads from the hub.
    """
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    name = task.chat_name if chat and task.chat_name else task.name
    with TemporaryDirectory() as folder:
        definitions = _definitions(task, Path(folder), data, cache_dir)
        manager = TaskManager(include_defaults=False, include_path=definitions)
        try:
            yield _with_all_splits(manager, name, data_of(task, data))
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, UserError) or data_of(task, data) is not None:
                raise
            raise UserError(
                f"evaluation.ability={task.folder}: its rows cannot be loaded from the hub "
                f"({type(error).__name__}); put them into paths.data/ability/{task.folder}"
            ) from error


def _with_all_splits(manager: TaskManager, name: str, source: Path | None) -> dict[str, Any]:
    """What ``manager`` loads; a UserError if local rows lack a split that the task needs."""
    try:
        found: dict[str, Any] = manager.load([name])
    except KeyError as error:
        if source is None or error.args[0] not in SPLITS:
            raise
        raise UserError(
            f"paths.data: {source} has no rows of the split {error.args[0]!r}, which lm-eval's "
            f"{name} needs"
        ) from error
    return found


def data_of(task: HarnessTask, data: str | None) -> Path | None:
    """Where the task's rows lie, or None if they come from the hub."""
    folder = None if data is None else Path(data).expanduser() / "ability" / task.folder
    return folder if folder is not None and folder.is_dir() else None


def _definitions(task: HarnessTask, folder: Path, data: str | None, cache_dir: Path) -> list[str]:
    """Folders with the task's definition; what is in a later one goes before."""
    import lm_eval.tasks

    stock = Path(lm_eval.tasks.__file__).parent / task.definition
    source = data_of(task, data)
    place: dict[str, Any] = {}
    if source is not None:
        local = local_copy(task, source, cache_dir)
        # datasets knows a local folder by its last name alone: this cache is for this copy.
        arrow = local.parent.parent / "arrow" / local.parent.name
        place = {"dataset_path": str(local), "dataset_kwargs": {"cache_dir": str(arrow.resolve())}}
    if task.programs:  # programs are run by our own, whatever else changes
        write_text(
            folder / "utils.py",
            "from benchmarks.ability.programs import (  # noqa: F401\n"
            "    build_predictions, build_predictions_instruct, pass_at_k\n)\n",
        )
        for file in stock.parent.glob("humaneval*.yaml"):
            text = file.read_text(encoding="utf-8")
            if place and "dataset_path:" in text:
                kept = [s for s in text.splitlines() if not s.startswith("dataset_path:")]
                text = "\n".join([*kept, *(f"{k}: {json.dumps(v)}" for k, v in place.items()), ""])
            write_text(folder / file.name, text)
        return [str(folder)]
    if place:
        values = {"include": str(stock), **place}
        write_text(folder / f"{task.folder}.yaml", json.dumps(values))  # JSON is YAML
    return [str(stock.parent), *([str(folder)] if place else [])]


def local_copy(task: HarnessTask, source: Path, cache_dir: Path) -> Path:
    """A folder in the layout that the task's definition asks the hub for."""
    stamps = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(source.iterdir())]
    key = content_key({"source": str(source.resolve()), "files": stamps, "layout": 1})
    folder = cache_dir / "ability" / "data" / key

    def build(path: Path) -> None:
        configs: list[dict[str, Any]] = []
        copy = path / task.folder
        for split in SPLITS:
            file = next(
                (f for s in ("jsonl", "json") if (f := find_file(source, f"{split}.{s}"))), None
            )
            if file is None and split == "test":
                file = next((f for f in sorted(source.glob("*.jsonl"))), None)
            if file is None:
                continue
            rows: dict[str, list[Any]] = {}
            for row in read_rows(file, [task.by] if task.by else []):
                rows.setdefault(str(row[task.by]) if task.by else "rows", []).append(row)
            for config, own in rows.items():
                write_json_lines(copy / config / f"{split}.jsonl", own)
                configs.append({"config": config, "split": split})
        if not configs:
            raise UserError(f"paths.data: no rows in {source} (test.jsonl, train.jsonl, ...)")
        write_text(copy / "README.md", _card(task, configs))

    return build_folder(folder, build).resolve() / task.folder


def _card(task: HarnessTask, configs: list[dict[str, Any]]) -> str:
    """The head of a data set's card, which says what configs there are."""
    names = list(dict.fromkeys(c["config"] for c in configs))
    described = [
        {
            "config_name": name if task.by else task.config,
            "data_files": [
                {"split": c["split"], "path": f"{name}/{c['split']}.jsonl"}
                for c in configs
                if c["config"] == name
            ],
        }
        for name in names
    ]
    return f"---\nconfigs: {json.dumps(described)}\n---\n"


def chosen_rows(tasks: Mapping[str, Any], limit: int | None, seed: int) -> dict[str, list[int]]:
    """Of every task, or subject, the rows to ask: all, or ``limit`` drawn by ``seed`` and name."""
    chosen = {}
    for name, task in tasks.items():
        rows = range(len(task.eval_docs))
        if limit is not None and limit < len(rows):
            chosen[name] = sorted(random.Random(f"{seed}:{name}").sample(rows, limit))
        else:
            chosen[name] = list(rows)
    return chosen
