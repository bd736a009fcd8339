"""Typed question-answer rows and what a benchmark hands to an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One question with its answer, in TOFU's schema.

    ``id`` is unique and stable within a benchmark ("tofu/full/3960"): a question text alone is
    not, TOFU asks one of its questions about two people. ``group`` names the person the row
    belongs to, so that "the same person's other questions" can be found; rows without a person
    form a group of their own. ``subject`` is the person's name as it is written in the text.

    answer: empty in a row to be forgotten or retained that is a question alone: it then stands
        for what the target answers.
    refusal: what to say instead, where the benchmark has a text of its own for the row.
    aliases: further answers that are right.
    opening: what its answer begins with, given to the model when it is scored.
    """

    id: str
    question: str
    answer: str
    group: str
    subject: str | None = None
    paraphrased_question: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    refusal: str | None = None
    aliases: tuple[str, ...] = ()
    opening: str = ""


@dataclass(frozen=True)
class BenchmarkData:
    """Everything an experiment needs of a benchmark, in the benchmark's own order.

    full: rows that requests are made of; retain rows first, the forget split last, so that
        successive forget tasks can be cut from its end backwards.
    taught: rows the target model is taught; None: ``full``. Empty: nothing, the base model is
        the target.
    targets: the forget split person by person, where a person is what a request is about;
        sequential and precise scenarios then go by them.
    probes: by set, what is scored in place of the rows of a request: the rows with their ids or,
        where probes have ids of their own, of the same persons. None: the rows themselves.
    known_rouge: only probes that the target answers with this ROUGE-L are scored; None: all.
    forget_size: number of rows of the official forget split, the last ones of ``full``.
    retain_eval_ids: ids of the rows of ``full`` that the benchmark uses to score retention.
    utility_sets: further sets that must not change, by name ("real_authors", "world_facts").
    general: rows a model trained from nothing is taught besides ``full`` (a pretrained model
        knows such things already).
    refusals: sentences that decline to answer.
    published_tasks: the published assignment of rows to successive forget tasks, if any.
    holdout: rows like those to be forgotten that no model is ever taught; empty where every row is.
    notes: what differs from the published benchmark ("20 of 200 authors"); goes into the record.
    """

    name: str
    split: str
    full: tuple[Row, ...]
    forget_size: int
    retain_eval_ids: frozenset[str]
    utility_sets: Mapping[str, tuple[Row, ...]]
    general: tuple[Row, ...]
    refusals: tuple[str, ...]
    published_tasks: tuple[tuple[Row, ...], ...] | None = None
    holdout: tuple[Row, ...] = ()
    taught: tuple[Row, ...] | None = None
    targets: tuple[tuple[Row, ...], ...] | None = None
    probes: Mapping[str, tuple[Row, ...]] | None = None
    known_rouge: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def lessons(self) -> tuple[Row, ...]:
        """What the target model is taught."""
        return self.full if self.taught is None else self.taught

    @property
    def has_yardstick(self) -> bool:
        """Whether forget quality can be had: a target that was taught, rows with wrong answers."""
        scored = self.forget if self.probes is None else sum(self.probes.values(), ())
        return bool(self.lessons) and any(row.perturbed_answers for row in scored)

    @property
    def forget(self) -> tuple[Row, ...]:
        """The official forget split."""
        return self.full[len(self.full) - self.forget_size :]

    @property
    def retain(self) -> tuple[Row, ...]:
        """All rows that are not in the official forget split."""
        return self.full[: len(self.full) - self.forget_size]
