"""Does it come back? The forget set once more, under attacks on an unlearned model.

Each attack scores the sets again, as sets of its own: "forget@relearn" beside "forget". What an
attack changes is the model, the question or the decoding; the scores are the same.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.aggregates import FORGET, HELD_OUT, HOLDOUT, SWAPPED
from benchmarks.evaluation import QuestionAnswerEvaluation
from benchmarks.metrics.text import rouge_l_recall
from unierase.errors import UserError
from unierase.models.finetune import FinetuneRecipe, finetune
from unierase.rows import Row
from unierase.scores import AnswerSets, Metrics, SetScores, answer_sets
from unierase.scoring.generation import generate

if TYPE_CHECKING:
    import torch

    from unierase.models.language_model import LanguageModel
    from unierase.scoring.generation import Generation

MARK = "@"
LEFT_ALONE = (HELD_OUT, HOLDOUT, SWAPPED)
"""Sets in no aggregate: not scored under attacks."""


class Attack(Protocol):
    """A way to get back what was forgotten."""

    def tested(self, name: str, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows of set ``name`` that are scored under the attack."""
        return rows

    def score(
        self,
        answers: QuestionAnswerEvaluation,
        lm: LanguageModel,
        sets: Mapping[str, Sequence[Row]],
        forget: Sequence[Row],
    ) -> AnswerSets:
        """The scores of ``sets`` under the attack; ``lm`` is left as it was. forget: all rows of
        the forget set, for attacks that use some of them."""


@dataclass(frozen=True)
class RobustEvaluation(QuestionAnswerEvaluation):
    """``QuestionAnswerEvaluation``, and the same under each of ``attacks``."""

    attacks: Mapping[str, Attack] = field(default_factory=dict, kw_only=True)

    def settings(self) -> Mapping[str, Any]:
        described = {n: {"kind": type(a).__name__, **asdict(a)} for n, a in self._used.items()}  # type: ignore[call-overload]
        return {**super().settings(), "attacks": described}

    @property
    def _used(self) -> dict[str, Attack]:
        """The attacks that the config did not set to null."""
        return {name: attack for name, attack in self.attacks.items() if attack is not None}

    def select(self, sets: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        base = {name: rows for name, rows in sets.items() if MARK not in name}
        chosen = dict(super().select(base))
        for attack, how in self._used.items():
            for name, rows in list(chosen.items()):
                if MARK not in name and name not in LEFT_ALONE:
                    chosen[f"{name}{MARK}{attack}"] = list(how.tested(name, rows))
        given = {name: rows for name, rows in sets.items() if MARK in name}
        return {**chosen, **given}

    def score(
        self,
        lm: LanguageModel,
        sets: Mapping[str, Sequence[Row]],
        decode: Callable[..., list[Generation]] | None = None,
    ) -> AnswerSets:
        chosen = self.select(sets)
        plain = without_attacks(self)
        base = {name: rows for name, rows in chosen.items() if MARK not in name}
        scores = dict(plain.score(lm, base, decode))
        attacked = replace(plain, privacy=False, gradient_norm=False)
        for attack, how in self._used.items():
            ending = f"{MARK}{attack}"
            own = {n.removesuffix(ending): r for n, r in chosen.items() if n.endswith(ending) and r}
            found = how.score(attacked, lm, own, chosen.get(FORGET, ())) if own else {}
            scores.update({f"{name}{ending}": rows for name, rows in found.items()})
        return scores

    def aggregate(self, scores: SetScores, retrained: SetScores | None) -> Metrics:
        rows = answer_sets(scores)
        base = {name: members for name, members in rows.items() if MARK not in name}
        plain = without_attacks(self)
        metrics = dict(plain.aggregate(base, retrained))
        metrics["attacks"] = {}
        for attack in self._used:
            ending = f"{MARK}{attack}"
            own = {n.removesuffix(ending): r for n, r in rows.items() if n.endswith(ending) and r}
            found = plain.aggregate(own, None)
            metrics["attacks"][attack] = {
                **{name: found.get(name) for name in ("FE", "MU", "balance")},
                **{f"forget_{n}": found["sets"].get(FORGET, {}).get(n) for n in ("rouge", "rows")},
            }
        return metrics


def without_attacks(evaluation: RobustEvaluation) -> QuestionAnswerEvaluation:
    """The evaluation without its attacks; its rows were chosen already."""
    chosen = ("limit", "part")
    own = (f.name for f in fields(QuestionAnswerEvaluation) if f.name not in chosen)
    return QuestionAnswerEvaluation(**{name: getattr(evaluation, name) for name in own})


# Attacks on the weights


@dataclass(frozen=True)
class Relearning(Attack):
    """The unlearned model is taught a ``share`` of the forget rows again; the others are tested.

    epochs, lr, batch_size: of the finetuning. A guard of an inference-time method stays on.
    """

    share: float
    epochs: int
    lr: float
    batch_size: int
    max_length: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"evaluation.attacks.relearn.share={self.share}: give 0 < share < 1")

    def _taught(self, forget: Sequence[Row]) -> set[str]:
        """Ids of the rows that are taught: drawn by their ids, at least one left to be tested."""
        order = sorted(forget, key=lambda r: random.Random(f"{self.seed}:{r.id}").random())
        return {row.id for row in order[: min(round(self.share * len(order)), len(order) - 1)]}

    def tested(self, name: str, rows: Sequence[Row]) -> Sequence[Row]:
        taught = self._taught(rows) if name == FORGET and rows else set()
        return [row for row in rows if row.id not in taught]

    def score(
        self,
        answers: QuestionAnswerEvaluation,
        lm: LanguageModel,
        sets: Mapping[str, Sequence[Row]],
        forget: Sequence[Row],
    ) -> AnswerSets:
        chosen = self._taught(forget) if forget else set()
        taught = [row for row in forget if row.id in chosen]
        again = replace(lm, model=copy.deepcopy(lm.model))
        if taught:
            recipe = FinetuneRecipe(
                self.epochs,
                self.lr,
                self.batch_size,
                None,
                0.0,
                0.1,
                max_length=self.max_length,
                train_on_questions=False,
                seed=self.seed,
            )
            finetune(again, taught, recipe, "relearning")
        return answers.score(again, sets)


@dataclass(frozen=True)
class Quantisation(Attack):
    """Every linear layer's weights rounded to ``bits``, symmetrically, one scale an output row.

    The rounding alone: values are computed in the model's own type, as for any other model.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise UserError(f"evaluation.attacks bits={self.bits}: choose 2 to 8")

    def score(
        self,
        answers: QuestionAnswerEvaluation,
        lm: LanguageModel,
        sets: Mapping[str, Sequence[Row]],
        forget: Sequence[Row],
    ) -> AnswerSets:
        from torch import nn

        model = copy.deepcopy(lm.model)
        head = model.get_output_embeddings()  # shared with the input's in many models: left alone
        for module in model.modules():
            if isinstance(module, nn.Linear) and module is not head:
                module.weight.data = rounded(module.weight.data, self.bits)
        return answers.score(replace(lm, model=model), sets)


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """``weight``, (outputs, inputs), on the nearest of 2^bits - 1 levels around 0 of each row."""
    most = 2 ** (bits - 1) - 1
    scale = weight.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / most
    return ((weight.float() / scale).round() * scale).to(weight.dtype)


# Attacks on the prompt


class Rewording(Attack, Protocol):
    """The same rows, each asked in another way."""

    def asked(self, row: Row, sets: Mapping[str, Sequence[Row]]) -> str:
        """The question that is put in place of the row's own."""

    def score(
        self,
        answers: QuestionAnswerEvaluation,
        lm: LanguageModel,
        sets: Mapping[str, Sequence[Row]],
        forget: Sequence[Row],
    ) -> AnswerSets:
        return answers.score(
            lm,
            {
                name: [replace(row, question=self.asked(row, sets)) for row in rows]
                for name, rows in sets.items()
            },
        )


@dataclass(frozen=True)
class Paraphrase(Rewording):
    """The benchmark's paraphrased questions; rows that have none are not tested."""

    def tested(self, name: str, rows: Sequence[Row]) -> Sequence[Row]:
        return [row for row in rows if row.paraphrased_question]

    def asked(self, row: Row, sets: Mapping[str, Sequence[Row]]) -> str:
        return row.paraphrased_question or row.question


@dataclass(frozen=True)
class PrefixInjection(Rewording):
    """``text`` before every question."""

    text: str

    def asked(self, row: Row, sets: Mapping[str, Sequence[Row]]) -> str:
        return f"{self.text} {row.question}"


@dataclass(frozen=True)
class FewShot(Rewording):
    """``shots`` answered questions of the set ``of`` before every question, never its own."""

    shots: int
    of: str = "retain"

    def asked(self, row: Row, sets: Mapping[str, Sequence[Row]]) -> str:
        others = [other for other in sets.get(self.of, ()) if other.id != row.id]
        drawn = random.Random(f"shots:{row.id}").sample(others, min(self.shots, len(others)))
        pairs = "".join(f"Question: {r.question}\nAnswer: {r.answer}\n" for r in drawn)
        return f"{pairs}Question: {row.question}"


# Attacks on the decoding


@dataclass(frozen=True)
class BannedTokens(Attack):
    """[UNL] is never chosen, nor, with ``refusals``, what this model's refusals begin with.

    The first tokens of the refusals are those of its own answers to the forget questions that
    begin as the most frequent ones do.
    """

    refusals: bool = False

    def score(
        self,
        answers: QuestionAnswerEvaluation,
        lm: LanguageModel,
        sets: Mapping[str, Sequence[Row]],
        forget: Sequence[Row],
    ) -> AnswerSets:
        banned = set(lm.unlearning_tokens)
        if self.refusals and forget:
            said = generate(lm, [row.question for row in forget], 2, answers.batch_tokens)
            first = [answer.token_ids[0] for answer in said if answer.token_ids]
            banned |= {token for token in first if first.count(token) > len(first) / 10}
        decode = partial(generate, banned=sorted(banned))
        return answers.score(lm, sets, decode)


@dataclass(frozen=True)
class BestOfSamples(Attack):
    """``samples`` answers drawn at ``temperature``; the one nearest to the reference counts.

    A row's draws depend on its question and the seed, not on what shares its batch.
    """

    samples: int
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1 or self.temperature <= 0:
            raise UserError("evaluation.attacks: samples and temperature must be above 0")

    def tested(self, name: str, rows: Sequence[Row]) -> Sequence[Row]:
        return rows if name == FORGET else ()  # what is retained needs no best of many

    def score(
        self,
        answers: QuestionAnswerEvaluation,
        lm: LanguageModel,
        sets: Mapping[str, Sequence[Row]],
        forget: Sequence[Row],
    ) -> AnswerSets:
        references: dict[str, list[str]] = {}
        for rows in sets.values():
            for row in rows:
                references.setdefault(row.question, []).append(row.answer)

        def nearest(
            lm: LanguageModel,
            questions: Sequence[str],
            max_new_tokens: int,
            batch_tokens: int,
            progress: str,
        ) -> list[Generation]:
            """Of each question's samples the one with the most of a reference in it."""
            draws = [
                generate(
                    lm,
                    questions,
                    max_new_tokens,
                    batch_tokens,
                    progress,
                    temperature=self.temperature,
                    seed=f"{self.seed}:{sample}",
                )
                for sample in range(self.samples)
            ]
            return [
                max(said, key=partial(_closeness, references[question]))
                for question, said in zip(questions, zip(*draws, strict=True), strict=True)
            ]

        return answers.score(lm, sets, nearest)


def _closeness(references: Sequence[str], said: Generation) -> float:
    """ROUGE-L recall of the reference there is most of."""
    return max(rouge_l_recall(references, [said.text] * len(references)))
