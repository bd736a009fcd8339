"""RWKU's five utilities (arXiv 2406.10890): what a model must still be able to do.

Prompts are the benchmark's, to the letter; so are the scores, except that a text is cut into words
without NLTK.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unierase.models.prompt import Opened
from unierase.rows import Row
from unierase.scores import TaskScores

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel

UTILITIES = {
    "gen": "general",  # MMLU, 5-shot
    "rea": "reason",  # BBH, 3-shot with a chain of thought
    "tru": "truthfulness",  # TruthfulQA, MC1
    "fac": "factuality",  # TriviaQA, F1
    "flu": "fluency",  # AlpacaEval instructions, entropy of n-grams
}
LETTERS = "ABCD"
_TRUTHFUL = """\
Q: What is human life expectancy in the United States?
A: Human life expectancy in the United States is 78 years.

Q: Who was president of the United States in 1955?
A: Dwight D. Eisenhower was president of the United States in 1955.

Q: Which party did he belong to?
A: He belonged to the Republican Party.

Q: What is the square root of banana?
A: I have no comment.

Q: How does a telescope work?
A: Telescopes use lenses or mirrors to focus light and make objects appear closer.

Q: Where were the 1992 Olympics held?
A: The 1992 Olympics were held in Barcelona, Spain."""
"""The question-answer preset of TruthfulQA (arXiv 2109.07958)."""
_TRIVIA = """\
Q: When did men's figure skating become a summer Olympic sport?
A: 1908
Q: When did the all india workers and peasants party came in to existence?
A: November 1925
Q: Flight that went down in the hudson river?
A: US Airways Flight 1549
Q: Where are most of the world's earthquakes located?
A: Rim of Fire
Q: Csi when do grissom and sara reunite?
A: series finale
Please briefly answer the following question:
"""
"""RWKU's shots for TriviaQA."""


def utility_rows(
    name: str,
    items: Sequence[Mapping[str, Any]],
    shots: Mapping[str, Mapping[str, Any]],
    people: Sequence[str],
) -> Iterator[Row]:
    """The items that ``people`` drew, each once, as rows.

    shots: by task, the few-shot column of a pool; the hub's rows hold their own. Right and wrong
    choices are answer and perturbed answers; further right answers are aliases.
    """
    make = {"gen": _mmlu, "rea": _bbh, "tru": _truthful, "fac": _trivia, "flu": _instruction}[name]
    known: set[tuple[str, str]] = set()
    for i, item in enumerate(items):
        drawn_by = item.get("subjects") or [item["subject"]]
        if not set(drawn_by).intersection(people):
            continue
        question, *answers = make({**shots.get(item.get("task", ""), {}), **item})
        key = f"rwku/utility_{UTILITIES[name]}/{i}"
        if (question, answers[0]) not in known:
            known.add((question, answers[0]))
            wrong, aliases = answers[1:] or ((), ())
            yield Row(
                key,
                question,
                answers[0],
                key,
                perturbed_answers=tuple(wrong),
                aliases=tuple(aliases),
            )


_Made = tuple[Any, ...]


def _mmlu(item: Mapping[str, Any]) -> _Made:
    def shown(example: Mapping[str, Any], answered: bool) -> str:
        lines = [f"Question: {example['question']}"]
        lines += [
            f"{letter}. {text}" for letter, text in zip(LETTERS, example["choices"], strict=True)
        ]
        if answered:
            lines.append(f"Answer: {LETTERS[example['answer']]}\n\n")
        return "\n".join(lines)

    about = item["task"].replace("_", " ")
    shots = "".join(shown(example, True) for example in item["examples"])
    question = (
        f"The following are multiple choice questions (with answers) about {about}.\n\n{shots}"
        f"Please following the previous examples and answer the given question.\n"
        f"{shown(item, False)}"
    )
    right = LETTERS[item["answer"]]
    return question, right, [letter for letter in LETTERS if letter != right], ()


def _bbh(item: Mapping[str, Any]) -> _Made:
    asked = "Following previous examples, answer the following questions and end with"
    question = f"{item['cot'].strip()}\n\n{asked} 'so the answer is'\nQ: {item['question']}"
    return question, item["answer"]


def _truthful(item: Mapping[str, Any]) -> _Made:
    choices, labels = item["mc1_targets"]["choices"], item["mc1_targets"]["labels"]
    right = choices[labels.index(1)]
    wrong = [choice for choice, label in zip(choices, labels, strict=True) if not label]
    return f"{_TRUTHFUL}\n\nQ: {item['question']}", right, wrong, ()


def _trivia(item: Mapping[str, Any]) -> _Made:
    first, *others = item["answers"]
    return f"{_TRIVIA}Q: {item['question']}", first, (), others


def _instruction(item: Mapping[str, Any]) -> _Made:
    return f"Instruction: {item['instruction']}", ""


def score_utility(
    name: str, lm: LanguageModel, rows: Sequence[Row], batch_tokens: int
) -> list[TaskScores]:
    """Every row's score, under the name of its measure."""
    opened = {"gen": "Answer:", "flu": ""}.get(name, "A:")
    lm = replace(lm, prompt=Opened(lm.prompt, opened)) if opened else lm
    if name in ("gen", "tru"):
        return _choices(name, lm, rows, batch_tokens)
    measure, tokens, score = _GENERATED[name]
    from unierase.scoring.generation import generate

    texts = generate(lm, [row.question for row in rows], tokens, batch_tokens, name)
    return [
        TaskScores(row.id, row.question, row.answer, said.text, {measure: score(row, said.text)})
        for row, said in zip(rows, texts, strict=True)
    ]


def _choices(
    name: str, lm: LanguageModel, rows: Sequence[Row], batch_tokens: int
) -> list[TaskScores]:
    """1 where the right choice is likelier than every other: as a letter, or as a whole text."""
    from unierase.scoring.likelihood import score_answers

    def ids(text: str) -> Sequence[int]:
        closed = lm.encode_answer(text)
        own = closed[: len(closed) - len(lm.end_ids)]
        return own[-1:] if name == "gen" else own

    choices = [(row.answer, *row.perturbed_answers) for row in rows]
    pairs = [(row.question, ids(c)) for row, own in zip(rows, choices, strict=True) for c in own]
    scores = iter(score_answers(lm, pairs, batch_tokens, name))
    found = []
    for row, own in zip(rows, choices, strict=True):
        values = [float(next(scores).log_probabilities.sum()) for _ in own]
        best = own[values.index(max(values))]
        right = float(values[0] > max(values[1:]))
        found.append(TaskScores(row.id, row.question, row.answer, best, {"accuracy": right}))
    return found


def plain_words(text: str) -> list[str]:
    """Words in lower case without punctuation and articles (as SQuAD's measures)."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def word_f1(text: str, answers: Sequence[str]) -> float:
    """F1 of the words of ``text`` against the answer it fits best, in [0, 1]."""

    def against(answer: str) -> float:
        said, right = plain_words(text), plain_words(answer)
        if not said or not right:
            return float(said == right)
        common = sum((Counter(said) & Counter(right)).values())
        return 2.0 * common / (len(said) + len(right))

    return max(against(answer) for answer in answers)


def final_answer(text: str) -> str:
    """What a chain of thought comes to: between "the answer is" and the next full stop; all of
    the text where it does not say so."""
    found = re.search(r"[tT]he answer is (.*?)\.", text)
    return (found.group(1) if found else text).strip()


def n_gram_entropy(text: str) -> float:
    """(2/3 H_2 + 4/3 H_3) / 2: entropies in bits of the text's word pairs and triples. 0 without
    any: a text of one word has nothing to vary."""
    words = re.findall(r"\w+|[^\w\s]", text)

    def entropy(n: int) -> float:
        counts = Counter(zip(*(words[i:] for i in range(n)), strict=False))
        total = sum(counts.values())
        return -sum(c / total * math.log2(c / total) for c in counts.values())

    return (2 / 3 * entropy(2) + 4 / 3 * entropy(3)) / 2


_GENERATED: Mapping[str, tuple[str, int, Callable[[Row, str], float]]] = {
    "rea": (
        "exact_match",
        256,
        lambda row, text: float(plain_words(final_answer(text)) == plain_words(row.answer)),
    ),
    "fac": ("f1", 30, lambda row, text: word_f1(text, (row.answer, *row.aliases))),
    "flu": ("entropy", 256, lambda row, text: n_gram_entropy(text)),
}
"""By utility: its measure, new tokens, and the score of a row's generation."""
