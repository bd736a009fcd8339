"""Every config composes, and what it names can be built."""

from __future__ import annotations

import pytest
from configs import CONF, config
from hydra.utils import instantiate
from omegaconf import OmegaConf

from unierase.config_types import check_types
from unierase.experiment.run import evaluation_of
from unierase.run_names import run_subdir
from unierase.run_values import config_values, method_settings, run_key

GROUPS = (
    "model",
    "data",
    "method",
    "scenario",
    "evaluation",
    "ability",
    "logger",
    "parallel",
    "experiment",
)
CHOICES = [(g, p.stem) for g in (*GROUPS, "experiment") for p in sorted((CONF / g).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_instantiates(group: str, choice: str) -> None:
    cfg = config(f"{group}={choice}")
    values = config_values(cfg)
    assert values["seed"] == 0
    check_types(values)
    for part in (cfg.model.source, cfg.model.finetune, cfg.data, cfg.method, cfg.scenario):
        assert instantiate(part) is not None
    evaluation_of(cfg)
    instantiate(cfg.ability)
    instantiate(cfg.logger)
    instantiate(cfg.parallel)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_file_names_its_command(group: str, choice: str) -> None:
    if group in ("logger", "scenario", "evaluation") and choice in (
        "none",
        "batch",
        "sequential",
        "precise",
        "default",
    ):
        return
    head = (CONF / group / f"{choice}.yaml").read_text().splitlines()[:2]
    assert any(line.startswith("# python run.py") for line in head)


@pytest.mark.parametrize("corpus", ["retain", "wikipedia", "file", "generated"])
def test_the_corpus_can_be_chosen(corpus: str) -> None:
    path = [f"method.corpus.path={__file__}"] if corpus == "file" else []
    cfg = config(f"+method/corpus={corpus}", *path)
    assert instantiate(cfg.method.corpus).identity()


@pytest.mark.parametrize("flagging", ["own_states", "minilm", "roberta"])
@pytest.mark.parametrize("corruption", ["noise_first", "noise_all", "zero_largest", "flip_signs"])
def test_the_parts_of_eco_can_be_chosen(flagging: str, corruption: str) -> None:
    cfg = config("method=eco", f"method/flagging={flagging}", f"method/corruption={corruption}")
    check_types(config_values(cfg))
    strengths = {"noise_first": 5, "noise_all": 5, "zero_largest": 100, "flip_signs": 1e6}
    assert instantiate(cfg.method).strength == strengths[corruption]
    assert instantiate(config("method=guardrail", f"method/flagging={flagging}").method)


def test_run_names_tell_what_ran_and_differ_by_config() -> None:
    cfg = config("data=tofu", "scenario=sequential", "method=npo_gd", "seed=3")
    name = run_subdir(cfg)
    assert name.startswith("tofu-forget01/tiny/sequential/npo_gd/seed3-")
    assert name.endswith(run_key(cfg)[:8])
    same = config(
        "data=tofu",
        "scenario=sequential",
        "method=npo_gd",
        "seed=3",
        "device=cpu",
        "paths.runs=elsewhere",
        "paths.data=/data",
        "logger=wandb",
    )
    assert run_subdir(same) == name
    other = config("data=tofu", "scenario=sequential", "method=npo_gd", "seed=3", "method.lr=1")
    assert run_subdir(other) != name


ABLATIONS: dict[str, dict[str, object]] = {
    "whole": {},
    "refusal": {"target": "refusal"},
    "no_nullspace": {"nullspace": False},
    "no_robust_phase": {"token.robust_phase": False},
    "own_output_row": {"token.share_output_row": False},
    "four_tokens": {"token.num_tokens": 4},
    "one_layer": {"layers": [1]},
    "subject_last": {"fact_token": "subject_last"},
    "question_last": {"fact_token": "question_last"},
    "prompt_last": {"fact_token": "prompt_last"},
    "contexts": {"context_prefixes": 5},
}


def test_every_ablation_has_a_preset() -> None:
    assert {p.stem for p in (CONF / "experiment").glob("ablation_*.yaml")} == {
        f"ablation_{name}" for name in ABLATIONS
    }


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_what_it_says(name: str) -> None:
    cfg = config(f"experiment=ablation_{name}")
    whole = OmegaConf.to_container(config().method, resolve=True)
    ablated = OmegaConf.to_container(cfg.method, resolve=True)
    assert isinstance(whole, dict) and isinstance(ablated, dict)
    assert cfg.study == "ablation"
    assert whole.pop("name") == "unierase"
    assert ablated.pop("name") == "unierase" + {
        "whole": "",
        "four_tokens": "-4-tokens",
    }.get(name, "-" + name.replace("_", "-"))
    for key, value in ABLATIONS[name].items():
        *groups, last = key.split(".")
        target = whole
        for group in groups:
            target = target[group]
        # prompt_last is what the tiny model's preset has anyway.
        assert target[last] != value or name == "prompt_last"
        target[last] = value
    assert ablated == whole


def test_what_a_command_sets_of_its_method() -> None:
    command = ["data=tofu", "method=npo_gd", "method.lr=1e-5", "method.name=mine", "seed=2"]
    assert method_settings(command) == {"lr": 1e-5}
    quoted = ["+method.corpus.path='a b'", "method.token.num_tokens=2", "method.layers=[1,2]"]
    expected = {"token.num_tokens": 2, "layers": [1, 2], "corpus.path": "a b"}
    assert method_settings([q.lstrip("+") for q in quoted]) == expected
    assert method_settings(quoted) == expected
    assert method_settings(["method=npo_gd", "method_x=1", "model.finetune.lr=1e-4"]) == {}
    elsewhere = {
        "method/corpus": "wikipedia",
        "training": "published",
        "model.unlearning.epochs": 2,
        "model.unierase.l2": 1,
        "editing.fact_token": "subject_last",
    }
    assert method_settings([f"{name}={value}" for name, value in elsewhere.items()]) == elsewhere
    assert method_settings(["+training=published"]) == {"training": "published"}
