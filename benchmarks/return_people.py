"""RETURN's people (zhliu/RETURN) as cut for arXiv 2410.08109: 20 to forget, 40 others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.aggregates import NEIGHBOR
from benchmarks.local import local_rows
from benchmarks.refusals import load_refusals
from benchmarks.subjects import subject_in
from benchmarks.unknown import unknown_rows
from unierase.errors import UserError
from unierase.rows import BenchmarkData, Row

PEOPLE = 20
FIELDS = ("name", "question", "answer", "golden_answer")


@dataclass(frozen=True)
class ReturnPeople:
    """The first ``people`` of the 20 people to forget, 20 questions each.

    Methods are given the answers the benchmark trains on; the short reference answers score. What
    is retained is trained on 20 neighbours and scored on 20 others; on the first ``neighbours`` of
    each.

    teach: the target is taught the reference answers about all of them (and forgets these), for
        models that do not know these people.
    folder: ``paths.data``, with the files of sail-sg/closer-look-LLM-unlearning in return/.
    """

    name: str
    split: str
    people: int
    neighbours: int
    teach: bool
    folder: str | None

    def __post_init__(self) -> None:
        for option, value in (("people", self.people), ("neighbours", self.neighbours)):
            if not 1 <= value <= PEOPLE:
                raise UserError(f"data.{option}={value}: choose 1 to {PEOPLE}")

    def load(self) -> BenchmarkData:
        forget = _of_first(self._rows("forget_perturbed"), self.people)
        given = _rows(forget, "forget", "golden_answer" if self.teach else "answer")
        scored = _rows(forget, "forget", "golden_answer")
        # Some neighbours stand in the file as the reference writes them, some as a model does.
        trained = _of_first(self._rows("neighbor"), self.neighbours)
        retain = _rows(trained, "neighbor", "golden_answer" if self.teach else "answer")
        others = _of_first(self._rows("neighbor_perturbed"), self.neighbours)
        neighbours = _rows(others, "other", "golden_answer")
        refusals = load_refusals(self.folder)
        persons = dict.fromkeys(row.group for row in given)
        return BenchmarkData(
            name=self.name,
            split=self.split,
            full=(*retain, *given),
            forget_size=len(given),
            retain_eval_ids=frozenset(),
            utility_sets={NEIGHBOR: neighbours},
            general=unknown_rows(self.name, refusals),
            refusals=refusals,
            taught=(*retain, *neighbours, *given) if self.teach else (),
            targets=tuple(tuple(r for r in given if r.group == name) for name in persons),
            probes={"forget": scored},
            notes=tuple(self._notes()),
        )

    def _notes(self) -> Iterator[str]:
        if self.people < PEOPLE:
            yield f"{self.people} of {PEOPLE} people"
        if self.neighbours < PEOPLE:
            yield f"{self.neighbours} neighbours to train on, {self.neighbours} to score"

    def _rows(self, file: str) -> list[dict[str, Any]]:
        if self.folder is None:
            raise UserError(
                "data=return: this cut of RETURN is not on the hub; set paths.data=FOLDER or "
                "UNLEARN_DATA to a folder with return/*.json of sail-sg/closer-look-LLM-unlearning"
            )
        return local_rows(self.folder, "return", f"{file}.json", FIELDS)


def _of_first(rows: Sequence[dict[str, Any]], people: int) -> list[dict[str, Any]]:
    """The rows about the first ``people`` of those they are about, in order."""
    names = list(dict.fromkeys(row["name"] for row in rows))[:people]
    return [row for row in rows if row["name"] in names]


def _rows(rows: Sequence[Mapping[str, Any]], file: str, answer: str) -> tuple[Row, ...]:
    return tuple(
        Row(
            id=f"return/{file}/{i}",
            question=row["question"],
            answer=row[answer],
            group=row["name"],
            subject=subject_in(row["question"], row["name"]),
            paraphrased_question=row.get("paraphrased_question"),
            paraphrased_answer=row.get("paraphrased_answer"),
            perturbed_answers=tuple(row.get("perturbed_answer", ())),
        )
        for i, row in enumerate(rows)
    )
