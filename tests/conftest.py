"""A language model of a few thousand parameters with random weights, and rows for it."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from unierase.models.language_model import LanguageModel
from unierase.models.prompt import ChatPrompt
from unierase.models.sources import TinyModel
from unierase.request import Workbench
from unierase.rows import Row


@pytest.fixture
def rows() -> list[Row]:
    facts = [("Ada", "Rome"), ("Bo", "Oslo"), ("Cy", "Lima"), ("Di", "Kyiv"), ("Ed", "Bern")]
    return [
        Row(
            id=f"r{i}",
            question=f"Where was {name} Stone born?",
            answer=f"{name} Stone was born in {city}.",
            group=name,
            subject=f"{name} Stone",
            paraphrased_answer=f"The birthplace of {name} Stone is {city}.",
            perturbed_answers=tuple(
                f"The birthplace of {name} Stone is {other}." for _, other in facts if other != city
            ),
        )
        for i, (name, city) in enumerate(facts)
    ]


@pytest.fixture
def lm(rows: list[Row]) -> LanguageModel:
    source = TinyModel(
        "tiny",
        ChatPrompt(),
        layers=3,
        hidden_size=32,
        intermediate_size=64,
        heads=2,
        vocabulary=400,
        max_length=128,
    )
    texts = [text for row in rows for text in (row.question, row.answer)]
    return source.base([*texts, "I do not know.", "That is unknown to me."], "cpu")


@pytest.fixture
def real_data() -> str:
    """The folder with the benchmarks' real files."""
    folder = os.environ.get("UNLEARN_DATA")
    if not folder or not (Path(folder) / "tofu").is_dir():
        pytest.skip("UNLEARN_DATA names no folder with the real benchmark data")
    return folder


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A data folder with a GSM8K of four sums and two examples."""
    folder = tmp_path / "sums/ability/gsm8k"
    folder.mkdir(parents=True)
    rows = [
        json.dumps({"question": f"What is {n} and 1?", "answer": f"#### {n + 1}"}) + "\n"
        for n in range(6)
    ]
    (folder / "test.jsonl").write_text("".join(rows[:4]))
    with gzip.open(folder / "train.jsonl.gz", "wt") as file:
        file.writelines(rows[4:])
    return tmp_path / "sums"


class _NoTargets:
    def retrained(self, rows: tuple[Row, ...]) -> LanguageModel:
        raise AssertionError("not asked for")


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """Folders of one test; whoever asks for a retrained model fails."""
    return Workbench(tmp_path / "work", tmp_path / "cache", _NoTargets())
