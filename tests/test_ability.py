"""Ability: what lm-eval is asked, on which rows, and what is read off the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from configs import config

from benchmarks.ability.ability import Ability
from benchmarks.ability.answers import answer_measures, is_repeated
from benchmarks.ability.harness_model import HarnessModel, Said
from benchmarks.ability.tasks import TASKS, chosen_rows, loaded
from benchmarks.metrics.refusal import refusal_degrees
from unierase.editing.token import add_unlearning_tokens
from unierase.errors import UserError
from unierase.experiment.ability import Abilities
from unierase.files import write_json
from unierase.models.language_model import LanguageModel
from unierase.run_values import run_key

REFUSALS = ("I do not know.", "That is unknown to me.")


class Encoder:
    """Says how near texts are as it was told."""

    model = "told"

    def __init__(self, near: Mapping[str, float]) -> None:
        self.near = near

    def nearest(self, texts: Sequence[str], others: Sequence[str]) -> list[float]:
        return [self.near[text] for text in texts]


def test_refusals_by_the_letter_and_by_nearness() -> None:
    texts = ["i do not know", "No idea.", "Unsure, maybe.", "Rome."]
    assert refusal_degrees(texts, REFUSALS, None) == [1.0, 0.0, 0.0, 0.0]
    near = Encoder(dict(zip(texts, (0.9, 0.76, 0.6, 0.49), strict=True)))
    assert refusal_degrees(texts, REFUSALS, near) == [1.0, 1.0, 0.6, 0.0]  # type: ignore[arg-type]


def test_measures_of_answers() -> None:
    said = [
        Said("I do not know.", 5, False),
        Said("", 1, True),  # [UNL], which the text does not show
        Said(" ", 1, False),
        Said("a b a b a b a b", 9, False),
    ]
    assert answer_measures(said, REFUSALS, None) == {
        "idk": 0.5,
        "length": 4.0,
        "empty": 0.25,
        "repeated": 0.25,
    }
    chosen = [Said(None, None, False), Said(None, None, True)]
    assert answer_measures(chosen, REFUSALS, None) == {
        "idk": 0.5,
        "length": None,
        "empty": None,
        "repeated": None,
    }


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("no no no no", True),
        ("no no no", False),
        ("well then " + "it is so. " * 4, True),
        ("it is so. " * 4 + "but then all at once it was something else again, and again", False),
        ("a plain answer of some words", False),
        ("", False),
    ],
)
def test_repetition(text: str, repeated: bool) -> None:
    assert is_repeated(text) == repeated


def test_rows_are_drawn_by_seed_and_name() -> None:
    tasks = {name: SimpleNamespace(eval_docs=range(40)) for name in ("one", "two")}
    first = chosen_rows(tasks, 5, seed=0)
    assert first == chosen_rows(tasks, 5, seed=0) != chosen_rows(tasks, 5, seed=1)
    assert first["one"] != first["two"]
    assert all(rows == sorted(set(rows)) and len(rows) == 5 for rows in first.values())
    assert chosen_rows(tasks, None, 0)["one"] == chosen_rows(tasks, 99, 0)["one"] == list(range(40))


def ability(tmp_path: Path, *tasks: str, **settings: Any) -> Ability:
    defaults: dict[str, Any] = {
        "limits": {},
        "shots": {"gsm8k": 1},
        "chat": True,
        "max_new_tokens": 8,
        "batch_tokens": 8192,
        "seed": 0,
        "allow_code_execution": False,
        "data": str(tmp_path / "sums"),
    }
    return Ability(tasks, **{**defaults, **settings})


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation\.ability=mlu.*gsm8k"):
        ability(tmp_path, "mlu")
    with pytest.raises(UserError, match="allow_code_execution"):
        ability(tmp_path, "humaneval")
    with pytest.raises(UserError, match=r"limits\.gsm8k=0"):
        ability(tmp_path, "gsm8k", limits={"gsm8k": 0})


def test_settings_that_decide_nothing_are_in_no_key() -> None:
    plain = config()
    assert run_key(plain) == run_key(config("ability.seed=1", "ability.batch_tokens=1"))
    asked = config("evaluation.ability=[gsm8k]")
    assert run_key(asked) != run_key(plain)
    assert run_key(asked) != run_key(config("evaluation.ability=[gsm8k]", "ability.seed=1"))


def test_a_task_from_local_files(lm: LanguageModel, tmp_path: Path, sums: Path) -> None:
    tasks = ability(tmp_path, "gsm8k", limits={"gsm8k": 3})
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        tasks.measure("gsm8k", lm, REFUSALS, tmp_path / "cache", folder)
    result = json.loads((folders[0] / "task.json").read_text())
    assert result["rows"] == 3 and result["accuracy"] == 0.0 and result["shots"] == 1
    assert result["task"] == "gsm8k" and result["version"] == 3.0
    assert 0 < result["length"] <= 8 and result["idk"] == 0.0
    samples = [json.loads(s) for s in (folders[0] / "samples.jsonl").read_text().splitlines()]
    assert [s["row"] for s in samples] == sorted(s["row"] for s in samples)
    for name in ("task.json", "samples.jsonl"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_model_that_is_right_every_second_time(
    lm: LanguageModel, tmp_path: Path, sums: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(self: HarnessModel, requests: Sequence[Any]) -> list[str]:
        texts = [
            f"So it is #### {r.doc['answer'][5:]}" if i % 2 else "#### 99"
            for i, r in enumerate(requests)
        ]
        self.said = {r.args[0]: Said(t, 3, False) for r, t in zip(requests, texts, strict=True)}
        return texts

    monkeypatch.setattr(HarnessModel, "generate_until", answers)
    ability(tmp_path, "gsm8k").measure("gsm8k", lm, REFUSALS, tmp_path / "cache", tmp_path / "r")
    result = json.loads((tmp_path / "r/task.json").read_text())
    assert result["accuracy"] == 0.5 and result["stderr"] == pytest.approx(0.5 / 3**0.5)


def test_tasks_on_rows_made_by_hand(lm: LanguageModel, tmp_path: Path) -> None:
    """TriviaQA and TruthfulQA, whose rows no copy here has, in the hub's fields."""
    rows: dict[str, dict[str, Any]] = {
        "triviaqa": {
            "question": "Where was Ada Stone born",
            "answer": {"aliases": ["Rome", "Roma"], "value": "Rome"},
        },
        "truthfulqa": {
            "question": "Is the moon made of cheese?",
            "mc1_targets": {"choices": ["No.", "Yes, all of it."], "labels": [1, 0]},
        },
    }
    for name, row in rows.items():
        folder = tmp_path / "sums/ability" / name
        folder.mkdir(parents=True)
        (folder / "validation.jsonl").write_text((json.dumps(row) + "\n") * 3)
    with (
        pytest.raises(UserError, match=r"triviaqa.*no rows of the split 'train'"),
        loaded(TASKS["triviaqa"], True, str(tmp_path / "sums"), tmp_path / "cache"),
    ):
        pass
    (tmp_path / "sums/ability/triviaqa/train.jsonl").write_text(json.dumps(rows["triviaqa"]))
    for name in rows:
        out = tmp_path / "out" / name
        ability(tmp_path, name).measure(name, lm, REFUSALS, tmp_path / "cache", out)
        result = json.loads((out / "task.json").read_text())
        assert result["rows"] == 3 and result["accuracy"] in (0, 1)  # three times the same row
        assert result["version"] in ("3.0", "2.0", 3.0, 2.0)
        assert (result["length"] is None) == (name == "truthfulqa")


def test_changed_files_are_read_anew(lm: LanguageModel, tmp_path: Path, sums: Path) -> None:
    def first_question() -> str:
        with loaded(TASKS["gsm8k"], True, str(sums), tmp_path / "cache") as found:
            return str(found["tasks"]["gsm8k"].eval_docs[0]["question"])

    assert first_question() == "What is 0 and 1?"
    row = {"question": "Another question, of another length?", "answer": "#### 7"}
    (sums / "ability/gsm8k/test.jsonl").write_text(json.dumps(row) + "\n")
    assert first_question() == row["question"]


def test_without_rows_or_a_hub(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(self: Any, names: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("lm_eval.tasks.TaskManager.load", offline)
    with (
        pytest.raises(UserError, match=r"evaluation\.ability=gsm8k.*paths\.data/ability/gsm8k"),
        loaded(TASKS["gsm8k"], True, None, tmp_path),
    ):
        pass


def test_choices_that_begin_with_unl_count(lm: LanguageModel, tmp_path: Path) -> None:
    """Idk of a task without generation: [UNL] is the likeliest first token."""
    from lm_eval.api.instance import Instance

    add_unlearning_tokens(lm, 1)
    (token,) = lm.unlearning_tokens
    head = lm.model.get_output_embeddings().weight.data
    head[token] = 0.0
    requests = [
        Instance("loglikelihood", {}, (q, f" {c}"), 0)
        for q in ("What is Rome?", "Who is Bo?")
        for c in "AB"
    ]
    model = HarnessModel(lm, chat=False)
    plain = model.loglikelihood(requests)
    assert [said.begins_unl for said in model.said.values()] == [False, False]
    prompt = model.lm.encode_prompt("Who is Bo?").ids
    import torch

    states: list[torch.Tensor] = []
    hook = lm.model.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: states.append(inputs[0])
    )
    lm.model(torch.tensor([prompt]))
    hook.remove()
    head[token] = 100.0 * states[0][0, -1].detach()
    model.loglikelihood(requests)
    assert model.said["Who is Bo?"].begins_unl
    assert len(plain) == 4


@dataclass
class Counted:
    """Tasks that count how often they are measured, and fail on demand."""

    tasks: tuple[str, ...] = ("one", "two")
    fails: str = ""

    def __post_init__(self) -> None:
        self.asked: list[str] = []

    def settings(self, name: str) -> dict[str, Any]:
        return {"task": name}

    def notes(self) -> list[str]:
        return []

    def measure(
        self, name: str, lm: LanguageModel, refusals: Sequence[str], cache: Path, folder: Path
    ) -> None:
        self.asked.append(name)
        if name == self.fails:
            raise KeyboardInterrupt
        write_json(folder / "task.json", {"accuracy": {"one": 0.25, "two": 0.75}[name]})


def test_a_killed_evaluation_goes_on_with_the_next_task(lm: LanguageModel, tmp_path: Path) -> None:
    tasks = Counted(fails="two")
    abilities = Abilities(tasks, REFUSALS, tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        abilities.after(lambda: lm, tmp_path / "run")
    assert not abilities.are_in(tmp_path / "run")
    tasks.fails = ""
    found = abilities.after(lambda: lm, tmp_path / "run")
    assert tasks.asked == ["one", "two", "two"] and found["accuracy"] == 0.5
    assert abilities.are_in(tmp_path / "run")


def test_the_model_before_is_asked_once(lm: LanguageModel, tmp_path: Path) -> None:
    tasks = Counted()
    loads = []

    def load() -> LanguageModel:
        loads.append(1)
        return lm

    for key in ("m", "m", "other"):
        Abilities(tasks, REFUSALS, tmp_path).before(load, key)
    assert tasks.asked == ["one", "two"] * 2 and len(loads) == 2


@pytest.mark.slow
def test_mmlu_as_lm_eval_asks_it(lm: LanguageModel, real_data: str, tmp_path: Path) -> None:
    """The same contexts and answers as lm-eval's own model, in plain text."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    lm = replace(lm, model=lm.model.eval())
    lm.model.config.max_position_embeddings = 8192
    results = []
    with loaded(TASKS["mmlu"], False, real_data, tmp_path) as found:
        chosen = chosen_rows(found["tasks"], 1, 0)
        for model in (
            HarnessModel(lm, chat=False),
            HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=8, max_length=8192),
        ):
            for task in found["tasks"].values():
                task._instances = None
                task.set_config(key="num_fewshot", value=1)
                task.set_fewshot_seed(seed=1234)
            results.append(evaluate(model, found, samples=chosen, bootstrap_iters=0))
    ours, theirs = results
    assert len(ours["samples"]) == 57
    assert ours["results"]["mmlu"]["acc,none"] == theirs["results"]["mmlu"]["acc,none"]
    for name, samples in ours["samples"].items():
        for one, other in zip(samples, theirs["samples"][name], strict=True):
            assert one["prompt_hash"] == other["prompt_hash"]
            for a, b in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
                assert float(a[0]) == pytest.approx(float(b[0]), abs=1e-3)
