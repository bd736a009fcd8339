"""TOFU: A Task of Fictitious Unlearning (arXiv 2401.06121)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.author_splits import (
    AUTHORS,
    FORGET_ROWS,
    RETAIN_EVAL_ROWS,
    ROWS_PER_AUTHOR,
    AuthorData,
)
from benchmarks.local import data_folder, find_file, hub_rows, local_rows, read_rows
from benchmarks.refusals import load_refusals
from benchmarks.subjects import assign_subjects
from benchmarks.unknown import unknown_rows
from unierase.errors import UserError
from unierase.rows import BenchmarkData, Row

_PERTURBED_FIELDS = ("question", "answer", "perturbed_answer")
_EXTRA: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Tofu(AuthorData):
    """TOFU's rows from a local copy of the hub's files, or from the hub.

    folder: ``paths.data``; None loads from the hub.
    """

    folder: str | None
    hub: str

    def load(self) -> BenchmarkData:
        """All rows in the official order, each with its paraphrased and perturbed texts."""
        plain = self._rows("full", ("question", "answer"))
        if len(plain) != AUTHORS * ROWS_PER_AUTHOR:
            raise UserError(f"data=tofu: full has {len(plain)} rows, not 4000; the copy is damaged")
        extras = self._extras()

        def rows_of(authors: Sequence[int]) -> tuple[Row, ...]:
            return tuple(row for author in authors for row in _author(author, plain, extras))

        full = rows_of(self.chosen_authors())
        scored = {f"tofu/full/{i}" for i in range(RETAIN_EVAL_ROWS)}
        utility = {name: self._utility(name) for name in ("real_authors", "world_facts")}
        refusals = load_refusals(self.folder, self.hub)
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
                *unknown_rows(self.name, refusals),
            ),
            refusals=refusals,
            holdout=rows_of(self.unseen_authors()),
            published_tasks=self._published_tasks({(r.question, r.answer): r for r in full}),
            notes=self.restriction_notes(),
        )

    def _rows(self, config: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
        if self.folder is None:
            return hub_rows(self.hub, config)
        return local_rows(self.folder, "tofu", f"{config}.json", fields)

    def _extras(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Paraphrased and perturbed texts by (question, answer).

        By both: one question text occurs twice, with different answers. The hub has them for the
        first and the last 400 rows; the files of the published sequences hold the rest.
        """
        rows = self._rows("retain_perturbed", _PERTURBED_FIELDS)
        rows += self._rows("forget10_perturbed", _PERTURBED_FIELDS)
        if self.folder is not None:
            sequential = data_folder(self.folder, "tofu") / "sequential"
            path = find_file(sequential, "forget10_perturbed.json")
            rows += read_rows(path, _PERTURBED_FIELDS) if path else []
        return {(row["question"], row["answer"]): row for row in rows}

    def _utility(self, name: str) -> tuple[Row, ...]:
        rows = self._rows(f"{name}_perturbed", _PERTURBED_FIELDS)
        return tuple(_row(f"{name}/{i}", row, None, None, row) for i, row in enumerate(rows))

    def _published_tasks(
        self, rows: Mapping[tuple[str, str], Row]
    ) -> tuple[tuple[Row, ...], ...] | None:
        if self.folder is None or self.authors_in_play < AUTHORS:
            return None
        path = find_file(data_folder(self.folder, "tofu") / "sequential", f"{self.split}.json")
        if path is None:
            return None
        tasks: dict[int, list[Row]] = {}
        for row in read_rows(path, ("task_id", "question", "answer")):
            task = tasks.setdefault(int(row["task_id"]), [])
            task.append(rows[row["question"], row["answer"]])
        return tuple(tuple(tasks[number]) for number in sorted(tasks))


def _author(
    author: int,
    plain: Sequence[Mapping[str, Any]],
    extras: Mapping[tuple[str, str], Mapping[str, Any]],
) -> Iterator[Row]:
    """The rows of one author."""
    start = author * ROWS_PER_AUTHOR
    block = plain[start : start + ROWS_PER_AUTHOR]
    subjects = assign_subjects([r["question"] for r in block], [r["answer"] for r in block])
    for offset, (row, subject) in enumerate(zip(block, subjects, strict=True)):
        extra = extras.get((row["question"], row["answer"]), _EXTRA)
        yield _row(f"full/{start + offset}", row, f"author-{author}", subject, extra)


def _row(
    key: str,
    row: Mapping[str, Any],
    group: str | None,
    subject: str | None,
    extra: Mapping[str, Any],
) -> Row:
    name = f"tofu/{key}"
    return Row(
        id=name,
        question=row["question"],
        answer=row["answer"],
        group=group or name,
        subject=subject,
        paraphrased_question=extra.get("paraphrased_question"),
        paraphrased_answer=extra.get("paraphrased_answer"),
        perturbed_answers=tuple(extra.get("perturbed_answer", ())),
    )
