"""lm-eval on models in memory, guarded ones too, with a task of its own format and no network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from baselines.inference.guardrail import RefusalGuard
from benchmarks.ability.harness_model import Asked, HarnessModel, until_first
from unierase.errors import UserError
from unierase.models.language_model import LanguageModel
from unierase.models.prompt import ChatPrompt, TextPrompt
from unierase.rows import Row


@pytest.fixture
def tasks(tmp_path: Path, rows: list[Row]) -> Any:
    """Two tasks on the rows: choose the city, and say the answer."""
    from lm_eval.tasks import TaskManager

    cities = ["Rome", "Oslo", "Lima", "Kyiv", "Bern"]
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(
            json.dumps({"question": r.question, "cities": cities, "label": i, "answer": r.answer})
            + "\n"
            for i, r in enumerate(rows)
        )
    )
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(data)},
            "cache_dir": str(tmp_path / "datasets"),
        },
        "test_split": "test",
        "doc_to_text": "{{question}}",
    }
    choose = {
        **common,
        "task": "choose_city",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{cities}}",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}],
    }
    say = {
        **common,
        "task": "say_it",
        "output_type": "generate_until",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    }
    folder = tmp_path / "tasks"
    folder.mkdir()
    for task in (choose, say):
        (folder / f"{task['task']}.yaml").write_text(json.dumps(task))  # JSON is YAML
    return TaskManager(include_defaults=False, include_path=str(folder))


def evaluated(lm: LanguageModel, tasks: Any) -> dict[str, list[dict[str, Any]]]:
    """The logged samples of both tasks, in order."""
    import lm_eval

    results = lm_eval.simple_evaluate(
        model=HarnessModel(lm),
        tasks=["choose_city", "say_it"],
        task_manager=tasks,
        apply_chat_template=True,
        fewshot_as_multiturn=False,
        bootstrap_iters=0,
        log_samples=True,
    )
    return {k: sorted(v, key=lambda s: s["doc_id"]) for k, v in results["samples"].items()}


def test_choices_by_hand(lm: LanguageModel, rows: list[Row], tasks: Any) -> None:
    samples = evaluated(lm, tasks)
    for row, sample in zip(rows, samples["choose_city"], strict=True):
        prompt = lm.encode_prompt(row.question).ids
        for choice, response in zip(sample["doc"]["cities"], sample["filtered_resps"], strict=True):
            tokens = lm.encode_answer(choice)[:-1]
            with torch.no_grad():
                logits = lm.model(torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
            start = len(prompt) - 1
            expected = sum(float(logits[start + i, t]) for i, t in enumerate(tokens))
            assert float(response[0]) == pytest.approx(expected, abs=1e-4)
    for row, sample in zip(rows, samples["say_it"], strict=True):
        assert sample["target"] == row.answer and isinstance(sample["filtered_resps"][0], str)


def test_a_guarded_model_is_evaluated_like_any_other(
    lm: LanguageModel, rows: list[Row], tasks: Any
) -> None:
    guard = RefusalGuard(lambda question: "Ada" in question, ["I do not know."])
    before, after = evaluated(lm, tasks), evaluated(replace(lm, guard=guard), tasks)
    assert after["say_it"][0]["filtered_resps"] == ["I do not know."]
    for task in ("choose_city", "say_it"):
        same = [
            a["filtered_resps"] == b["filtered_resps"]
            for a, b in zip(before[task], after[task], strict=True)
        ]
        assert same == [False, True, True, True, True]


def test_answers_end_at_the_first_stop_string() -> None:
    assert until_first("  x = 1\n\ndef f", ["\ndef", "\n\n"]) == "  x = 1"
    assert until_first("all of it", ["Q:"]) == "all of it"
    assert until_first("all of it", []) == "all of it"


def test_messages_keep_their_places(lm: LanguageModel) -> None:
    """Description, examples with question, and opening, to the letter, as lm-eval's own model."""
    messages = [
        {"role": "system", "content": "About sums.\n\n"},
        {"role": "user", "content": "Q: 1\nA: 1\n\nQ: 2\nA:"},
        {"role": "assistant", "content": "It is"},
    ]
    model = HarnessModel(lm)
    told, question = Asked.of(model.apply_chat_template(messages)).to(lm)
    prompt = told.prompt.render(lm.tokenizer, question, "").text
    expected = lm.tokenizer.apply_chat_template(
        messages[:2], tokenize=False, add_generation_prompt=True
    )
    assert prompt == f"{expected}It is"
    # Behind what the model was told already, or, without such a message, before the question.
    advised = replace(lm, prompt=ChatPrompt(system="Be brief."))
    told, question = Asked.of(model.apply_chat_template(messages)).to(advised)
    assert "Be brief.\n\nAbout sums." in told.prompt.render(lm.tokenizer, question, "").text
    bare = Asked.of(model.apply_chat_template(messages)).to(replace(lm, prompt=TextPrompt()))
    assert bare[1] == "About sums.\n\nQ: 1\nA: 1\n\nQ: 2\nA:"
    plain = Asked.of("Question: {a}\nAnswer:").to(lm)
    assert plain[1] == "Question: {a}\nAnswer:" and plain[0].prompt == lm.prompt


def test_perplexity_is_refused(lm: LanguageModel) -> None:
    with pytest.raises(UserError, match="perplexity"):
        HarnessModel(lm).loglikelihood_rolling([])
