"""Fictitious authors generated from a seed, in TOFU's schema and with its split names."""

from __future__ import annotations

import random
from dataclasses import dataclass

from benchmarks.author_splits import (
    AUTHORS,
    FORGET_ROWS,
    RETAIN_EVAL_ROWS,
    ROWS_PER_AUTHOR,
    AuthorData,
)
from benchmarks.fictional_words import (
    FACTS,
    FIRST_ENDINGS,
    FIRST_NAMES,
    LAST_ENDINGS,
    LAST_ENDINGS_UNSEEN,
    LAST_STARTS,
    NUMBERS,
    REAL_AUTHORS,
    REFUSALS,
    TEMPLATES,
    WORLD_FACTS,
    YEARS,
)
from benchmarks.unknown import unknown_rows
from unierase.rows import BenchmarkData, Row

PERTURBED = 5


@dataclass(frozen=True)
class Fictional(AuthorData):
    """200 authors of 20 questions each, generated from ``seed``."""

    seed: int

    def load(self) -> BenchmarkData:
        """Rows in TOFU's order; an author's rows do not depend on how many are asked for."""
        names = author_names(self.seed)
        full = tuple(
            row
            for author in self.chosen_authors()
            for row in author_rows(author, names[author], self.seed)
        )
        # Authors nobody is taught: beyond the two hundred where all of them are in play.
        unseen = self.unseen_authors() or range(AUTHORS, AUTHORS + self._forget_authors)
        holdout = tuple(
            row for author in unseen for row in author_rows(author, names[author], self.seed)
        )
        utility = {
            "real_authors": _general_rows("real_authors", REAL_AUTHORS),
            "world_facts": _general_rows("world_facts", WORLD_FACTS),
        }
        scored = {f"fictional/full/{i}" for i in range(RETAIN_EVAL_ROWS)}
        return BenchmarkData(
            name=self.name,
            split=self.split,
            full=full,
            forget_size=FORGET_ROWS[self.split],
            retain_eval_ids=frozenset(row.id for row in full if row.id in scored),
            utility_sets=utility,
            general=(
                *utility["real_authors"],
                *utility["world_facts"],
                *unknown_rows(self.name, REFUSALS),
            ),
            refusals=REFUSALS,
            holdout=holdout,
            notes=self.restriction_notes(),
        )


def author_names(seed: int) -> list[str]:
    """Full names: of 200 authors, then of people nobody is taught. Surnames are all different, so
    that each names one author."""
    draw = random.Random(f"{seed}:names")
    firsts = [name + ending for ending in FIRST_ENDINGS for name in FIRST_NAMES]
    lasts = [start + ending for start in LAST_STARTS for ending in LAST_ENDINGS]
    draw.shuffle(firsts)
    draw.shuffle(lasts)
    more = [start + ending for start in LAST_STARTS for ending in LAST_ENDINGS_UNSEEN]
    named = [*zip(firsts, lasts, strict=True), *zip(firsts[: len(more)], more, strict=True)]
    return [f"{first} {last}" for first, last in named]


def author_rows(author: int, name: str, seed: int) -> list[Row]:
    """The 20 rows of one author."""
    draw = random.Random(f"{seed}:author:{author}")
    rows: list[Row] = []
    taken: set[str] = set()
    for number, (_, kind, questions, answers) in enumerate(TEMPLATES):
        # An author's values all differ: both parents, say, never share a profession.
        values = _values(kind, draw, PERTURBED + 1, taken)
        taken.add(values[0])
        asked = draw.sample(range(len(questions)), 2)
        said = draw.sample(range(len(answers)), 2)
        rows.append(
            Row(
                id=f"fictional/full/{author * ROWS_PER_AUTHOR + number}",
                question=questions[asked[0]].format(name=name),
                answer=answers[said[0]].format(name=name, value=values[0]),
                group=f"author-{author}",
                subject=name,
                paraphrased_question=questions[asked[1]].format(name=name),
                paraphrased_answer=answers[said[1]].format(name=name, value=values[0]),
                # As in TOFU, a perturbed answer is the paraphrase with another value.
                perturbed_answers=tuple(
                    answers[said[1]].format(name=name, value=value) for value in values[1:]
                ),
            )
        )
    return rows


def _values(kind: str, draw: random.Random, count: int, taken: set[str]) -> list[str]:
    """``count`` different values of a kind, none of them in ``taken``."""
    if kind == "title":
        titles = [f"{a} {n}" for a in FACTS["adjective"] for n in FACTS["noun"]]
        pool = [f"The {title}" for title in titles]
    elif kind == "year":
        pool = list(YEARS)
    elif kind == "siblings":
        pool = list(NUMBERS)
    else:
        pool = list(FACTS[kind])
    return draw.sample([value for value in pool if value not in taken], count)


def _general_rows(
    name: str, items: tuple[tuple[str, str, tuple[str, str, str]], ...]
) -> tuple[Row, ...]:
    return tuple(
        Row(
            id=f"fictional/{name}/{i}",
            question=question,
            answer=answer,
            group=f"fictional/{name}/{i}",
            perturbed_answers=wrong,
        )
        for i, (question, answer, wrong) in enumerate(items)
    )
