"""The prompts an edit works on: a fact, its edit position, its contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unierase.errors import invalid_choice
from unierase.models.prompt import EncodedPrompt
from unierase.rows import Row
from unierase.scoring.generation import generate_ids

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

POSITIONS = ("subject_last", "question_last", "prompt_last")


@dataclass(frozen=True)
class EditPrompt:
    """One prompt of a fact: token ids, cut in two at the edit position.

    ``before`` are the tokens in front of the edit position, ``after`` those from it on. The
    edit position is thus the first token of ``after``. ``weight`` is the prompt's share among
    the contexts of its fact.
    """

    fact: int
    ids: tuple[int, ...]
    position: int
    weight: float

    @property
    def before(self) -> tuple[int, ...]:
        return self.ids[: self.position]

    @property
    def after(self) -> tuple[int, ...]:
        return self.ids[self.position :]


def edit_position(prompt: EncodedPrompt, fact_token: str) -> int:
    """The edit position by its name; without a subject, the question's last token."""
    if fact_token == "prompt_last":
        return prompt.prompt_last
    if fact_token == "subject_last" and prompt.subject_last is not None:
        return prompt.subject_last
    if fact_token in POSITIONS:
        return prompt.question_last
    raise invalid_choice("method.fact_token", fact_token, POSITIONS)


def fact_prompts(
    lm: LanguageModel,
    rows: Sequence[Row],
    fact_token: str,
    prefixes: Sequence[str] = (),
    opening: str = "",
) -> list[EditPrompt]:
    """The bare prompt of every row, then its prompts with a prefix inside the user's turn.

    The bare prompt has half of a fact's weight and the prefixes share the other half; without
    prefixes it has all.
    opening: what an answer may be made to begin with. Every prompt then comes with it, too, edited
        at the same position, and the two share its weight.
    """
    endings: list[tuple[int, ...]] = [()]
    if opening:
        endings.append(tuple(lm.tokenizer(opening, add_special_tokens=False)["input_ids"]))
    contexts = [("", 0.5 if prefixes else 1.0)]
    contexts += [(prefix, 0.5 / len(prefixes)) for prefix in prefixes]
    prompts = []
    for fact, row in enumerate(rows):
        for prefix, weight in contexts:
            encoded = lm.encode_prompt(row.question, row.subject, prefix)
            position = edit_position(encoded, fact_token)
            for ending in endings:
                ids, share = (*encoded.ids, *ending), weight / len(endings)
                prompts.append(EditPrompt(fact, ids, position, share))
    return prompts


def answer_prompts(
    lm: LanguageModel, rows: Sequence[Row], cuts: int, first_fact: int
) -> tuple[list[Row], list[EditPrompt]]:
    """Of every row, its bare prompt with more and more of the answer behind it, cut off at
    ``cuts`` points: what the model reads while it gives the answer. The edit position is the
    last token.

    Each is a fact of its own, numbered from ``first_fact``; returns the row of each, too.
    """
    owners: list[Row] = []
    prompts: list[EditPrompt] = []
    for row in rows:
        prompt, answer = lm.encode_prompt(row.question).ids, lm.encode_answer(row.answer)
        for cut in cut_points(len(answer), cuts):
            ids = (*prompt, *answer[:cut])
            prompts.append(EditPrompt(first_fact + len(owners), ids, len(ids) - 1, 1.0))
            owners.append(row)
    return owners, prompts


def cut_points(length: int, cuts: int) -> list[int]:
    """At most ``cuts`` points inside a text of ``length`` tokens, the first behind its first
    token, the others evenly spread."""
    inside = length - 1
    if cuts >= inside:
        return list(range(1, length))
    return [1 + place * inside // cuts for place in range(cuts)]


def fall_backs(lm: LanguageModel, rows: Sequence[Row], fact_token: str) -> int:
    """Number of rows edited at the question's last token for want of a subject in it."""
    if fact_token != "subject_last":
        return 0
    return sum(lm.encode_prompt(row.question, row.subject).subject_last is None for row in rows)


def generated_prefixes(lm: LanguageModel, count: int, tokens: int) -> tuple[str, ...]:
    """Short texts by the model itself, one after each of a few common first words (as MEMIT)."""
    starts = ("The", "Therefore", "Because", "I", "You", "It", "When", "There", "In", "A")[:count]
    prefixes = []
    for start in starts:
        ids = lm.tokenizer(start, add_special_tokens=False)["input_ids"]
        (new,) = generate_ids(lm, [ids], tokens)
        text = lm.tokenizer.decode([*ids, *new], skip_special_tokens=True).strip()
        prefixes.append(text.rstrip(".") + ".")
    return tuple(prefixes)
