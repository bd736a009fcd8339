"""What an edit is said to cost, against the operations counted while one runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from configs import CONF, config
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from unierase.editing.cost import Workload, edit_cost
from unierase.editing.method import UniErase
from unierase.editing.prompts import fact_prompts
from unierase.editing.token import TokenSettings
from unierase.editing.values import ValueSettings
from unierase.models.language_model import LanguageModel
from unierase.request import UnlearningRequest, Workbench
from unierase.rows import Row

REFUSALS = ("I do not know.",)
PLAN = Path(__file__).parents[1] / "scripts" / "plan.py"


@pytest.mark.parametrize("position", ["subject_last", "prompt_last"])
def test_operations_are_those_of_a_real_edit(
    lm: LanguageModel, rows: list[Row], bench: Workbench, position: str
) -> None:
    method = UniErase(
        name="unierase",
        layers=[0, 1],
        token=TokenSettings(batch_size=4),
        values=ValueSettings(steps=30, kl=0.0, stop_loss=0.0),
        fact_token=position,
        context_prefixes=0,
        retain_weight=1.0,
        refine_epochs=2,
        progress=False,
    )
    request = UnlearningRequest(tuple(rows[:4]), tuple(rows[4:]), REFUSALS, 1, 0)
    prompts = fact_prompts(lm, rows[:4], position)

    def mean(lengths: list[int]) -> int:
        return round(sum(lengths) / len(lengths))

    work = Workload(
        facts=4,
        retain=1,
        prompt_tokens=mean([len(p.ids) for p in prompts]),
        suffix_tokens=mean([len(p.after) for p in prompts]),
        raw_tokens=mean([len(lm.tokenizer(row.question)["input_ids"]) for row in rows[:4]]),
        refusal_tokens=len(lm.encode_answer(REFUSALS[0])) + 2,
        answer_tokens=len(lm.encode_answer(rows[4].answer)),
    )
    phases = edit_cost(lm.model, method, work)
    assert [phase.name for phase in phases] == [
        "covariances of the corpus",
        "projectors",
        "unlearning token",
        "target values",
        "keys and update",
    ]
    counter = FlopCounterMode(display=False)
    with counter:
        method.unlearn(lm, request, {}, bench)
    # Decompositions and the solve are no matrix products: the counter does not see them.
    said = sum(phase.operations for phase in phases if phase.name != "projectors")
    assert said == pytest.approx(counter.get_total_flops(), rel=0.25)


def test_lengths_are_estimated_from_characters() -> None:
    forget = (
        Row("0", "Where did Ada Lum, the poet, live?", "In a house of 24 rooms.", "a", "Ada Lum"),
        Row("1", "Who?", "Nobody.", group="b"),
    )
    request = UnlearningRequest(forget, forget[:1], ("I do not know.",), 1, 0, (forget,))
    work = Workload.of(request, "subject_last")
    # 34 and 4 characters: 19 on average; 17 and 0 behind the subject's last mention.
    assert (work.facts, work.retain, work.earlier) == (2, 1, 2)
    assert (work.raw_tokens, work.prompt_tokens, work.suffix_tokens) == (5, 31, 9)
    assert (work.answer_tokens, work.refusal_tokens) == (5, 7)
    assert Workload.of(request, "question_last").suffix_tokens == 7
    assert Workload.of(request, "prompt_last").suffix_tokens == 1


def test_an_edit_of_8b_fits_one_card() -> None:
    """400 facts on Llama-3.1-8B, from its config alone, in less than 80 GB."""
    command = [sys.executable, str(PLAN), "model=llama-3.1-8b", "--facts", "400"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.startswith("llama-3.1-8b: 8.03 B parameters, 16.1 GB")
    (peak,) = [line for line in output.splitlines() if line.startswith("peak: ")]
    assert 17 < float(peak.split()[1]) < 80


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        # As published with the checkpoints.
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("llama-2-7b", 6_738_415_616),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-7b", 7_615_616_512),
        ("gemma-2-2b", 2_614_341_888),
        ("phi-3.5-mini", 3_821_079_552),
    ],
)
def test_shapes_give_the_published_number_of_parameters(model: str, parameters: int) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shapes = OmegaConf.load(CONF / "model" / f"{model}.yaml").architecture
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shapes))
    assert sum(p.numel() for p in skeleton.parameters()) == parameters


def test_bad_input_is_one_line() -> None:
    for override, message in (
        ("method=ga_gd", "not an edit; use method=unierase"),
        ("model=llama-9", "choose one of"),
        ("method.layers=[40]", "40 is out of range; this model has 0..3"),
    ):
        done = subprocess.run([sys.executable, str(PLAN), override], capture_output=True, text=True)
        assert done.returncode == 2 and message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_methods_say_what_a_request_costs(rows: list[Row]) -> None:
    request = UnlearningRequest(tuple(rows[:4]), tuple(rows[4:]), REFUSALS, 1, 0)
    said = {}
    for name in ("unierase", "ga_gd", "none"):
        cfg = config(f"method={name}")
        model = instantiate(cfg.model.source).skeleton()
        said[name] = instantiate(cfg.method).cost(model, request)
    assert said["unierase"].startswith("edit of layers 1, 2: about 0.")
    # 4 rows are one step of up to 8 in each of 5 epochs; 5.24 M parameters, 16 bytes each.
    assert said["ga_gd"].startswith("5 steps of 8 forget rows (5 epochs), 5.2 M trained")
    assert "0.1 GB" in said["ga_gd"] and said["none"] is None
