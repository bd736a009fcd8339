"""RETURN's people (zhliu/RETURN) as cut for arXiv 2410.08109: 20 to forget, 40 others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    is retained is trained on 20 neighbours and scored on 20 others.

    teach: the target is taught the reference answers about all of them (and forgets these), for
        models that do not know these people.
    folder: ``paths.data``, with the files of sail-sg/closer-look-LLM-unlearning in return/.
    """

    name: str
    split: str
    people: int
    teach: bool
    folder: str | None

    def __post_init__(self) -> None:
        if not 1 <= self.people <= PEOPLE:
            raise UserError(f"data.people={self.people}: choose 1 to {PEOPLE}")

    def load(self) -> BenchmarkData:
        wanted = range(1, self.people + 1)
        forget = [r for r in self._rows("forget_perturbed", "task_id") if r["task_id"] in wanted]
        given = _rows(forget, "forget", "golden_answer" if self.teach else "answer")
        scored = _rows(forget, "forget", "golden_answer")
        # Some neighbours stand in the file as the reference writes them, some as a model does.
        trained = self._rows("neighbor")
        retain = _rows(trained, "neighbor", "golden_answer" if self.teach else "answer")
        neighbours = _rows(self._rows("neighbor_perturbed"), "other", "golden_answer")
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
            notes=() if self.people == PEOPLE else (f"{self.people} of {PEOPLE} people",),
        )

    def _rows(self, file: str, *more: str) -> list[dict[str, Any]]:
        if self.folder is None:
            raise UserError(
                "data=return: this cut of RETURN is not on the hub; set paths.data=FOLDER or "
                "UNLEARN_DATA to a folder with return/*.json of sail-sg/closer-look-LLM-unlearning"
            )
        return local_rows(self.folder, "return", f"{file}.json", (*FIELDS, *more))


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
