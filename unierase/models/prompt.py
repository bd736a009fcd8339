"""The one prompt formatter of a model, used by finetuning, every method and every metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from unierase.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Rendered:
    """The text before an answer, and where the question lies in it (character offsets)."""

    text: str
    question_start: int
    question_end: int


@dataclass(frozen=True)
class EncodedPrompt:
    """Token ids of a prompt and the positions in it at which a method may edit.

    ``question_last`` and ``subject_last`` index ``ids``; ``subject_last`` is None where the
    subject is unknown or not literally in the question.
    question: the question as it stands in the prompt. offsets: where each token lies in it, in
    characters from its start (tokens of the template lie before 0 or behind its end).
    """

    ids: tuple[int, ...]
    question_last: int
    subject_last: int | None
    question: str
    offsets: tuple[tuple[int, int], ...]

    @property
    def prompt_last(self) -> int:
        """Position of the prompt's last token, the one that predicts the answer's first."""
        return len(self.ids) - 1

    def positions(self, start: int, end: int) -> tuple[int, ...]:
        """Positions of the tokens that overlap the question's characters ``start`` to ``end``."""
        return tuple(
            i for i, (first, stop) in enumerate(self.offsets) if first < end and stop > start
        )


class PromptFormat(Protocol):
    """Turns a question into the text that stands before the answer."""

    def render(self, tokenizer: PreTrainedTokenizerFast, question: str, prefix: str) -> Rendered:
        """The prompt for ``question``; ``prefix`` is put before it, inside the user's turn."""

    def answer_text(self, answer: str) -> str:
        """The answer as it is written after the prompt."""

    def end_ids(self, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
        """The tokens that close an answer (end of turn, or end of text)."""

    def with_system(self, text: str) -> PromptFormat | None:
        """The same format with ``text`` in its system message, behind what is said there; None of
        a format that has no such message."""


_MARK = "\ue000"
"""A character for private use: no template holds it."""


@dataclass(frozen=True)
class ChatPrompt:
    """The tokenizer's own chat template: question as user turn, answer as assistant turn.

    ``template_kwargs`` go to the template: Llama 3.2, for one, writes today's date into the
    prompt unless it is given one, and results would differ from day to day.
    """

    system: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def _messages(self, content: str) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": content}]

    def _asked(self, tokenizer: PreTrainedTokenizerFast, content: str) -> str:
        text: str = tokenizer.apply_chat_template(
            self._messages(content),
            tokenize=False,
            add_generation_prompt=True,
            **dict(self.template_kwargs),
        )
        return text

    def render(self, tokenizer: PreTrainedTokenizerFast, question: str, prefix: str) -> Rendered:
        question = question.strip()
        text = self._asked(tokenizer, f"{prefix} {question}" if prefix else question)
        # By what stands behind it: the template may hold the question's letters elsewhere, too.
        end = len(text) - len(self._asked(tokenizer, _MARK).partition(_MARK)[2])
        start = end - len(question)
        if start < 0 or text[start:end] != question:
            raise UserError(f"model.prompt: the chat template changed the question {question!r}")
        return Rendered(text, start, end)

    def answer_text(self, answer: str) -> str:
        return answer

    def end_ids(self, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
        # The template says what follows an answer: render one and take the first special token
        # after it. The tokenizer's eos can be another token (end of text, not end of turn).
        text = tokenizer.apply_chat_template(
            [*self._messages("question"), {"role": "assistant", "content": _MARK}],
            tokenize=False,
            **dict(self.template_kwargs),
        )
        after = tokenizer(text.partition(_MARK)[2], add_special_tokens=False)
        special = set(tokenizer.all_special_ids)
        for token in after["input_ids"]:
            if token in special:
                return (token,)
        return (tokenizer.eos_token_id,)

    def with_system(self, text: str) -> PromptFormat | None:
        return replace(self, system=f"{self.system}\n\n{text}" if self.system else text)


@dataclass(frozen=True)
class TextPrompt:
    """A plain template for models without a chat format; ``{question}`` marks the place."""

    template: str = "Question: {question}\nAnswer:"
    before_answer: str = " "

    def __post_init__(self) -> None:
        if self.template.count("{question}") != 1:
            raise UserError(f"model.prompt.template={self.template!r}: needs one {{question}}")

    def render(self, tokenizer: PreTrainedTokenizerFast, question: str, prefix: str) -> Rendered:
        # Not str.format: a question may hold braces.
        before, after = self.template.split("{question}")
        if tokenizer.bos_token and tokenizer.add_bos_token:
            before = tokenizer.bos_token + before
        if prefix:
            before += prefix + " "
        text = before + question + after
        return Rendered(text, len(before), len(before) + len(question))

    def answer_text(self, answer: str) -> str:
        return self.before_answer + answer

    def end_ids(self, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
        return (tokenizer.eos_token_id,)

    def with_system(self, text: str) -> PromptFormat | None:
        return None


@dataclass(frozen=True)
class Opened:
    """``inner``, with the first words of the answer given, such as "Answer:"."""

    inner: PromptFormat
    opening: str

    def render(self, tokenizer: PreTrainedTokenizerFast, question: str, prefix: str) -> Rendered:
        rendered = self.inner.render(tokenizer, question, prefix)
        if rendered.text.rstrip().endswith(self.opening):
            return rendered
        return replace(rendered, text=rendered.text + self.opening)

    def answer_text(self, answer: str) -> str:
        return " " + answer

    def end_ids(self, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
        return self.inner.end_ids(tokenizer)

    def with_system(self, text: str) -> PromptFormat | None:
        inner = self.inner.with_system(text)
        return None if inner is None else replace(self, inner=inner)


def encode_prompt(
    format: PromptFormat,
    tokenizer: PreTrainedTokenizerFast,
    question: str,
    subject: str | None = None,
    prefix: str = "",
) -> EncodedPrompt:
    """Token ids of the prompt for ``question`` and its edit positions."""
    rendered = format.render(tokenizer, question, prefix)
    encoding = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
    offsets: Sequence[tuple[int, int]] = encoding["offset_mapping"]

    def last_token_before(end: int) -> int:
        return max(i for i, (start, stop) in enumerate(offsets) if start < end and stop > start)

    subject_last = None
    if subject:
        found = rendered.text.rfind(subject, rendered.question_start, rendered.question_end)
        if found >= 0:
            subject_last = last_token_before(found + len(subject))
    return EncodedPrompt(
        ids=tuple(encoding["input_ids"]),
        question_last=last_token_before(rendered.question_end),
        subject_last=subject_last,
        question=rendered.text[rendered.question_start : rendered.question_end],
        offsets=tuple(
            (start - rendered.question_start, stop - rendered.question_start)
            for start, stop in offsets
        ),
    )


def encode_answer(
    format: PromptFormat, tokenizer: PreTrainedTokenizerFast, answer: str
) -> tuple[int, ...]:
    """Token ids of ``answer`` and of what closes it.

    Prompt and answer are encoded apart and joined as ids, so an answer has the same tokens
    whatever stands before it.
    """
    ids = tokenizer(format.answer_text(answer), add_special_tokens=False)["input_ids"]
    return (*ids, *format.end_ids(tokenizer))
