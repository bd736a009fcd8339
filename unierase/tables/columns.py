"""The columns of results tables: which number of a record each shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unierase.experiment.record import RunRecord


@dataclass(frozen=True)
class Column:
    """A quantity: its heading, where it is found in a record, and which way is better.

    better: +1 higher, -1 lower, 0 neither (no cell is marked best).
    scale, digits: how a value is shown.
    """

    name: str
    path: tuple[str | int, ...]
    better: int = 0
    scale: float = 1.0
    digits: int = 3

    @property
    def heading(self) -> str:
        return self.name + {1: " ↑", -1: " ↓", 0: ""}[self.better]

    def shown(self, value: float) -> str:
        """``value`` as it stands in a table; what would round to 0 without being 0 as 1.2e-34."""
        scaled = value * self.scale
        plain = f"{scaled:.{self.digits}f}"
        return f"{scaled:.1e}" if scaled and not float(plain) else plain


SCORES = (
    Column("FE", ("after", "FE"), 1),
    Column("RE", ("after", "RE"), 1),
    Column("MU", ("after", "MU"), 1),
    Column("Balance", ("after", "balance"), 1),
    Column("Forget ROUGE-L", ("after", "sets", "forget", "rouge"), -1),
    Column("Forget prob.", ("after", "sets", "forget", "probability"), -1),
    Column("Earlier ROUGE-L", ("after", "sets", "earlier", "rouge"), -1),
    Column("Same person ROUGE-L", ("after", "sets", "same_person", "rouge"), 1),
    Column("Retain ROUGE-L", ("after", "sets", "retain", "rouge"), 1),
    Column("Retain prob.", ("after", "sets", "retain", "probability"), 1),
    Column("Held-out ROUGE-L", ("after", "sets", "held_out", "rouge"), 1),
    Column("Held-out prob.", ("after", "sets", "held_out", "probability"), 1),
    Column("[UNL] on retain %", ("after", "sets", "retain", "emits_unl"), -1, 100.0, 1),
    *(
        Column(f"Refuses {name} %", ("after", "sets", key, "refusal"), better, 100.0, 1)
        for name, key, better in (
            ("forget", "forget", 1),
            ("swapped", "swapped", -1),
            ("retain", "retain", -1),
            ("neighbour", "neighbor", -1),
            ("real authors", "real_authors", -1),
            ("world facts", "world_facts", -1),
        )
    ),
    Column("Flagged forget %", ("after", "sets", "forget", "flagged"), 1, 100.0, 1),
    Column("Flagged retain %", ("after", "sets", "retain", "flagged"), -1, 100.0, 1),
    Column("Neighbour ROUGE-L", ("after", "sets", "neighbor", "rouge"), 1),
    Column("Neighbour prob.", ("after", "sets", "neighbor", "probability"), 1),
    Column("Forget FB", ("after", "rwku", "forget_fb"), -1, 100.0, 1),
    Column("Forget QA", ("after", "rwku", "forget_qa"), -1, 100.0, 1),
    Column("Forget AA", ("after", "rwku", "forget_aa"), -1, 100.0, 1),
    Column("Forget All", ("after", "rwku", "forget_all"), -1, 100.0, 1),
    Column("Earlier All", ("after", "rwku", "earlier_all"), -1, 100.0, 1),
    Column("Neighbour FB", ("after", "rwku", "neighbor_fb"), 1, 100.0, 1),
    Column("Neighbour QA", ("after", "rwku", "neighbor_qa"), 1, 100.0, 1),
    Column("Neighbour All", ("after", "rwku", "neighbor_all"), 1, 100.0, 1),
    Column("FM", ("after", "rwku", "membership", "loss", "forget"), -1),
    Column("RM", ("after", "rwku", "membership", "loss", "retain"), 1),
    Column("AUC", ("after", "rwku", "membership", "loss", "auc")),
    Column("Gen", ("after", "rwku", "gen"), 1, 100.0, 1),
    Column("Rea", ("after", "rwku", "rea"), 1, 100.0, 1),
    Column("Tru", ("after", "rwku", "tru"), 1, 100.0, 1),
    Column("Fac", ("after", "rwku", "fac"), 1, 100.0, 1),
    Column("Flu", ("after", "rwku", "flu"), 1, 100.0, 1),
    Column("Model utility", ("after", "model_utility"), 1),
    Column("Forget quality", ("after", "forget_quality"), 1),
    Column("Ability", ("after", "ability", "accuracy"), 1),
    *(
        Column(f"{heading} {measure}", ("after", "ability", "tasks", task, key), better, scale, 1)
        for task, heading in (
            ("mmlu", "MMLU"),
            ("gsm8k", "GSM8K"),
            ("humaneval", "HumanEval"),
            ("triviaqa", "TriviaQA"),
            ("truthfulqa", "TruthfulQA"),
        )
        for measure, key, better, scale in (
            ("Acc", "accuracy", 1, 100.0),
            ("Idk", "idk", -1, 100.0),
            ("Len", "length", 0, 1.0),
        )
    ),
)

COST = (
    Column("Balance", ("after", "balance"), 1),
    Column("Unlearning s", ("seconds", "unlearning"), -1, 1.0, 1),
    Column("Peak memory GB", ("peak_memory_bytes",), -1, 1e-9, 2),
    Column("Trained parameters M", ("rounds", 0, "report", "trained_parameters"), 0, 1e-6, 2),
    Column("Changed %", ("changed_share",), 0, 100.0, 2),
)
"""What a method takes. Seconds and memory are those of the machine it ran on."""


MEMORISATION = (
    *(
        Column(name, ("after", "sets", "forget", key), -1)
        for name, key in (
            ("Forget prob.", "probability"),
            ("First token", "first_token_probability"),
            ("Other tokens", "rest_probability"),
            ("ROUGE-L, [UNL] banned", "banned_rouge"),
            ("Exact memorisation", "exact_memorisation"),
            ("Extraction strength", "extraction_strength"),
        )
    ),
    *(
        Column(f"{attack} {measure}", ("after", "membership", key, which))
        for measure, which in (("AUC", "auc"), ("PrivLeak", "privleak"))
        for attack, key in (
            ("Loss", "loss"),
            ("Zlib", "zlib"),
            ("Min-K", "min_k"),
            ("Min-K++", "min_k_plus_plus"),
            ("Reference", "reference"),
            ("Gradient", "gradient_norm"),
        )
    ),
)
"""What is left of the forget rows: likelihoods, memorisation and membership inference. An AUC is
good at the retrained model's, whose PrivLeak is 0: neither end is best."""


def by_round(rounds: int) -> tuple[Column, ...]:
    """After each of so many requests, what a sequence is judged by."""
    metrics = [("rounds", n, "metrics") for n in range(rounds)]
    return (
        *(Column(f"FE {n + 1}", (*path, "FE"), 1) for n, path in enumerate(metrics)),
        *(Column(f"MU {n + 1}", (*path, "MU"), 1) for n, path in enumerate(metrics)),
        *(Column(f"Balance {n + 1}", (*path, "balance"), 1) for n, path in enumerate(metrics)),
    )


def by_attack(attacks: Sequence[str]) -> tuple[Column, ...]:
    """What comes back under attacks, and what is left of the rest."""
    where = ("after", "attacks")
    return (
        Column("no attack: forget ROUGE-L", ("after", "sets", "forget", "rouge"), -1),
        *(
            Column(f"{attack}: forget ROUGE-L", (*where, attack, "forget_rouge"), -1)
            for attack in attacks
        ),
        Column("no attack: FE", ("after", "FE"), 1),
        *(Column(f"{attack}: FE", (*where, attack, "FE"), 1) for attack in attacks),
        Column("no attack: MU", ("after", "MU"), 1),
        *(Column(f"{attack}: MU", (*where, attack, "MU"), 1) for attack in attacks),
    )


def attacks_of(record: RunRecord) -> list[str]:
    """The attacks a run was scored under."""
    return list((record.after or {}).get("attacks") or {})


def value(record: RunRecord, path: Sequence[str | int]) -> float | None:
    """The number at ``path`` in a record, or None."""
    found = _found(record, path)
    return float(found) if isinstance(found, (int, float)) else None


def interval(record: RunRecord, path: Sequence[str | int]) -> tuple[float, float] | None:
    """The bootstrap interval of the number at ``path``, where the record has one."""
    found = _found(record, (path[0], "intervals", *path[1:]))
    return (found[0], found[1]) if isinstance(found, list) else None


def _found(record: RunRecord, path: Sequence[str | int]) -> Any:
    found: Any = getattr(record, str(path[0]), None)
    for name in path[1:]:
        if isinstance(name, int):
            found = found[name] if isinstance(found, Sequence) and name < len(found) else None
        else:
            found = found.get(name) if isinstance(found, Mapping) else None
    return found
