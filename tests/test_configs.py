"""Every config composes, and what it names can be built."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from unierase.config_types import check_types
from unierase.run_names import register_resolvers, run_subdir
from unierase.run_values import config_values, run_key

CONF = Path(__file__).parents[1] / "conf"
GROUPS = ("model", "data", "method", "scenario", "evaluation", "logger", "experiment")
CHOICES = [(g, p.stem) for g in GROUPS for p in sorted((CONF / g).glob("*.yaml"))]


def config(*overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_instantiates(group: str, choice: str) -> None:
    cfg = config(f"{group}={choice}")
    values = config_values(cfg)
    assert values["seed"] == 0
    check_types(values)
    for part in (cfg.model.source, cfg.model.finetune, cfg.data, cfg.method, cfg.scenario):
        assert instantiate(part) is not None
    instantiate(cfg.evaluation)
    instantiate(cfg.logger)


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
