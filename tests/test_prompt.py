"""Prompt formats, token by token."""

from __future__ import annotations

from unierase.models.language_model import LanguageModel
from unierase.models.prompt import TextPrompt, encode_prompt


def test_golden_chat_tokens(lm: LanguageModel) -> None:
    prompt = lm.encode_prompt("Where was Ada Stone born?", "Ada Stone")
    tokens = lm.tokenizer.convert_ids_to_tokens(list(prompt.ids))
    assert tokens == ["<|user|>", "Where", "Ġwas", "ĠAda", "ĠStone", "Ġborn", "?", "<|assistant|>"]
    assert tokens[prompt.question_last] == "?"
    assert prompt.subject_last is not None and tokens[prompt.subject_last] == "ĠStone"
    assert tokens[prompt.prompt_last] == "<|assistant|>"
    answer = lm.tokenizer.convert_ids_to_tokens(list(lm.encode_answer("Ada Stone")))
    assert answer[-1] == "<|end|>" and answer.count("<|end|>") == 1
    assert not answer[0].startswith("Ġ")  # no space creeps in before the answer


def test_a_question_that_the_template_holds_too(lm: LanguageModel) -> None:
    prompt = lm.encode_prompt("a")  # as in <|user|>a<|assistant|>
    tokens = lm.tokenizer.convert_ids_to_tokens(list(prompt.ids))
    assert (tokens, prompt.question_last) == (["<|user|>", "a", "<|assistant|>"], 1)


def test_answer_tokens_do_not_depend_on_the_prompt(lm: LanguageModel) -> None:
    text = lm.tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "Where was Bo Stone born?"},
            {"role": "assistant", "content": "Bo Stone was born in Oslo."},
        ],
        tokenize=False,
    )
    whole = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt = lm.encode_prompt("Where was Bo Stone born?")
    assert [*prompt.ids, *lm.encode_answer("Bo Stone was born in Oslo.")] == whole


def test_a_prefix_stands_inside_the_users_turn(lm: LanguageModel) -> None:
    prompt = lm.encode_prompt("Where was Ada Stone born?", "Ada Stone", prefix="Well.")
    text = lm.tokenizer.decode(list(prompt.ids))
    assert text == "<|user|>Well. Where was Ada Stone born?<|assistant|>"


def test_a_subject_that_is_not_in_the_question(lm: LanguageModel) -> None:
    assert lm.encode_prompt("Where was she born?", "Ada Stone").subject_last is None
    assert lm.encode_prompt("Where was she born?", None).subject_last is None


def test_braces_in_a_question_are_kept(lm: LanguageModel) -> None:
    prompt = encode_prompt(TextPrompt("Q: {question}\nA:"), lm.tokenizer, "What is {x} {question}?")
    assert lm.tokenizer.decode(list(prompt.ids)) == "Q: What is {x} {question}?\nA:"
