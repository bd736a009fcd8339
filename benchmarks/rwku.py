"""RWKU: Real-World Knowledge Unlearning (arXiv 2406.10890): 200 real people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.local import hub_rows, local_rows
from benchmarks.refusals import load_refusals
from benchmarks.rwku_utility import UTILITIES, utility_rows
from benchmarks.subjects import subject_in
from benchmarks.unknown import unknown_rows
from unierase.errors import UserError, invalid_choice
from unierase.rows import BenchmarkData, Row

SUFFIX_ATTACK = "affirmative suffix"
"""The one attack that begins the answer itself."""
CORPORA = ("questions", "positive", "passages")
PROBES = {
    "forget_fb": "forget_level1",
    "forget_qa": "forget_level2",
    "forget_aa": "forget_level3",
    "neighbor_fb": "neighbor_level1",
    "neighbor_qa": "neighbor_level2",
}
TEXTS = {"mia_forget": "mia_forget", "mia_retain": "mia_retain"}


@dataclass(frozen=True)
class Rwku:
    """Some of the 200 people to forget, with all their probes.

    targets: their names or numbers (from 0), or how many of the first ones.
    retain_people: how many further people's material methods are given to retain.
    opening: what the answer to a probe begins with, given to the model ("Answer:").
    corpus: what methods forget and retain: "questions", the benchmark's generated questions, asked
        as probes are, with what the target answers and the benchmark's refusals; "positive", its
        generated biographies with false ones to be said instead; "passages", the raw texts.
    rows: of the corpus, per person.
    teach: the target is taught the plain probes about the people and their neighbours first.
    known_only: only probes the target answers are scored: those with a ROUGE-L of known_rouge.
    utility: which of gen, rea, tru, fac, flu are scored, on the people's own samples.
    folder: ``paths.data``; None loads from the hub.
    """

    name: str
    split: str
    targets: Any
    retain_people: int
    opening: str
    corpus: str
    rows: int
    teach: bool
    known_only: bool
    known_rouge: float
    utility: Sequence[str]
    folder: str | None
    hub: str

    def __post_init__(self) -> None:
        if self.corpus not in CORPORA:
            raise invalid_choice("data.corpus", self.corpus, CORPORA)
        for name in self.utility:
            if name not in UTILITIES:
                raise invalid_choice("data.utility", name, UTILITIES)
        for option, value in (("rows", self.rows), ("retain_people", self.retain_people)):
            if value < 1:
                raise UserError(f"data.{option}={value}: must be at least 1")

    def load(self) -> BenchmarkData:
        """Raises a UserError for unknown people, and where a probe is among the material."""
        people = [row["target"] for row in self._rows("forget_target", "train", ("target",))]
        chosen = chosen_people(self.targets, people)
        others = [name for name in people if name not in chosen][: self.retain_people]
        probes = {
            name: tuple(
                _probes(self._of(config, chosen, ("query", "answer")), config, self.opening)
            )
            for name, config in PROBES.items()
        }
        material = self._material([*others, *chosen], probes)
        retain, forget = (
            tuple(row for name in names for row in material[name]) for names in (others, chosen)
        )
        refuse_leaks([*retain, *forget], [row for rows in probes.values() for row in rows])
        texts = {
            name: tuple(_texts(self._of(config, chosen, ("text",)), config))
            for name, config in TEXTS.items()
        }
        refusals = load_refusals(self.folder)
        return BenchmarkData(
            name=self.name,
            split=self.split,
            full=(*retain, *forget),
            forget_size=len(forget),
            retain_eval_ids=frozenset(),
            utility_sets=self._utility(chosen),
            general=unknown_rows(self.name, refusals),
            refusals=refusals,
            taught=self._lessons(probes) if self.teach else (),
            targets=tuple(material[name] for name in chosen),
            probes={**probes, **texts},
            known_rouge=self.known_rouge if self.known_only else None,
            notes=tuple(self._notes(chosen, people, probes)),
        )

    def _rows(self, config: str, split: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
        if self.folder is None:
            return hub_rows(self.hub, config, split)
        return local_rows(self.folder, "rwku", f"{config}.jsonl", fields)

    def _of(
        self, config: str, people: Sequence[str], fields: tuple[str, ...], split: str = "test"
    ) -> list[tuple[int, dict[str, Any]]]:
        """Rows about ``people`` with their place in the file."""
        rows = self._rows(config, split, ("subject", *fields))
        return [(i, row) for i, row in enumerate(rows) if row["subject"] in people]

    def _material(
        self, people: Sequence[str], probes: Mapping[str, Sequence[Row]]
    ) -> dict[str, tuple[Row, ...]]:
        """The first rows of the corpus about each of ``people``, without probes and repetitions."""
        secret = {normalised(_asked(row)) for rows in probes.values() for row in rows}
        found: dict[str, dict[str, Row]] = {name: {} for name in people}
        for row in self._corpus(people):
            key = normalised(_asked(row) if self.corpus == "questions" else row.answer)
            mine = found[row.group]
            if len(mine) < self.rows and key and key not in secret:
                mine.setdefault(key, row)
        for name, rows in found.items():
            if not rows:
                raise UserError(
                    f"data.corpus={self.corpus}: no rows about {name} in this copy; use "
                    "data.corpus=questions or passages, or data.targets and data.retain_people "
                    "within the first ten"
                )
        return {name: tuple(rows.values()) for name, rows in found.items()}

    def _corpus(self, people: Sequence[str]) -> Iterator[Row]:
        if self.corpus == "questions":
            config = "train_refusal_llama3"
            for i, row in self._of(config, people, ("output",), "train"):
                yield Row(
                    id=f"rwku/{config}/{i}",
                    question=_in_words("briefly answer", row["instruction"]),
                    answer="",  # what the target answers
                    group=row["subject"],
                    subject=subject_in(row["instruction"], row["subject"]),
                    refusal=row["output"],
                )
            return
        config = "train_original_passage" if self.corpus == "passages" else "train_pair_llama3"
        field = "text" if self.corpus == "passages" else "response"
        for i, row in self._of(config, people, (field,), "train"):
            false, true = (None, row["text"]) if field == "text" else row["response"]
            person = row["subject"]
            question = f"Please write a short biography of {person}."
            yield Row(f"rwku/{config}/{i}", question, true, person, person, refusal=false)

    def _lessons(self, probes: Mapping[str, Sequence[Row]]) -> tuple[Row, ...]:
        """The plain probes, each once, with the answers as they are asked for.

        What is asked about a person's neighbours is a group of its own: it is to stay when the
        person is forgotten, so a model retrained without the person learns it all the same.
        """
        once: dict[tuple[str, str], Row] = {}
        for name, rows in probes.items():
            if name == "forget_aa":
                continue
            about = "neighbours of " if name.startswith("neighbor") else ""
            for row in rows:
                answer = f"{self.opening} {row.answer}"
                lesson = Row(row.id, row.question, answer, about + row.group, row.subject)
                once.setdefault((row.question, row.answer), lesson)
        return tuple(once.values())

    def _utility(self, people: Sequence[str]) -> dict[str, tuple[Row, ...]]:
        return {
            name: tuple(
                utility_rows(
                    name,
                    self._rows(f"utility_{UTILITIES[name]}_pool", "test", ())
                    if self.folder
                    else self._rows(f"utility_{UTILITIES[name]}", "test", ()),
                    {
                        row["task"]: row
                        for row in (
                            self._rows(f"utility_{UTILITIES[name]}_fewshot", "test", ("task",))
                            if self.folder and name in ("gen", "rea")
                            else ()
                        )
                    },
                    people,
                )
            )
            for name in self.utility
        }

    def _notes(
        self,
        chosen: Sequence[str],
        people: Sequence[str],
        probes: Mapping[str, Sequence[Row]],
    ) -> Iterator[str]:
        if len(chosen) < len(people):
            yield f"{len(chosen)} of {len(people)} people"
        yield f"{self.rows} {self.corpus} a person"
        counts = Counter(
            (row.group, row.question, row.answer) for rows in probes.values() for row in rows
        )
        if repeated := sum(counts.values()) - len(counts):
            yield f"{repeated} repeated probes kept, as published"
        blanks = [row for name in ("forget_fb", "neighbor_fb") for row in probes[name]]
        if unmarked := sum("___" not in row.question for row in blanks):
            yield f"{unmarked} blanks not marked as such kept, as published"


def chosen_people(targets: Any, people: Sequence[str]) -> list[str]:
    """Names of ``targets``: names or numbers, or how many of the first ``people``."""
    if isinstance(targets, int):
        targets = list(range(targets))
    if isinstance(targets, str):
        targets = [targets]
    chosen = []
    for target in targets:
        if isinstance(target, int) and 0 <= target < len(people):
            chosen.append(people[target])
        elif target in people:
            chosen.append(target)
        else:
            raise UserError(
                f"data.targets={target}: give names of the benchmark's {len(people)} people "
                f"({people[0]}, ...), numbers from 0 to {len(people) - 1}, or how many"
            )
    if not chosen or len(set(chosen)) < len(chosen) or len(chosen) == len(people):
        raise UserError(
            f"data.targets={targets}: give 1 to {len(people) - 1} different people; those left "
            "are needed to retain"
        )
    return chosen


def attack(kind: str) -> str:
    """The name of an adversarial probe's attack: one for all languages and spellings."""
    return re.sub(r"\s*\(.*\)", "", kind).replace("-", " ")


def attack_of(row_id: str) -> str | None:
    """The attack of an adversarial probe; None for any other row."""
    parts = row_id.split("/")
    return parts[2] if parts[1] == PROBES["forget_aa"] else None


def normalised(text: str) -> str:
    """``text`` without case, punctuation and spacing."""
    return " ".join(re.sub(r"[\W_]+", " ", text.lower()).split())


def refuse_leaks(material: Iterable[Row], probes: Iterable[Row]) -> None:
    """Raise a UserError if a probe is asked in the material that methods are given."""
    secret = {normalised(_asked(row)) for row in probes}
    for row in material:
        if normalised(_asked(row)) in secret:
            raise UserError(f"data=rwku: the probe {row.question!r} is among the training rows")


def _asked(row: Row) -> str:
    """A question without the instruction around it."""
    return row.question.split("\n", 1)[-1].removeprefix("Question: ")


def _in_words(task: str, query: str, before: str = "Question: ") -> str:
    """The benchmark's prompt."""
    return f"Please {task} the following question.\n{before}{query}"


def _probes(
    rows: Iterable[tuple[int, Mapping[str, Any]]], config: str, opening: str
) -> Iterator[Row]:
    task = "complete the blank in" if config.endswith("level1") else "briefly answer"
    for i, row in rows:
        kind = attack(row["type"])
        before = "" if kind == "incontext learning" else "Question: "
        key = f"{kind}/{i}" if config == PROBES["forget_aa"] else str(i)
        yield Row(
            id=f"rwku/{config}/{key}",
            question=_in_words(task, row["query"], before),
            answer=row["answer"],
            group=row["subject"],
            subject=subject_in(row["query"], row["subject"]),
            opening="" if kind == SUFFIX_ATTACK else opening,
        )


def _texts(rows: Iterable[tuple[int, Mapping[str, Any]]], config: str) -> Iterator[Row]:
    for i, row in rows:
        yield Row(f"rwku/{config}/{i}", "", row["text"], row["subject"])
