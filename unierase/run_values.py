"""What of a config decides a run's result, the key that stands for it, and what a command set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from unierase.files import content_key


def config_values(cfg: DictConfig) -> dict[str, Any]:
    """The part of a config that decides a run's result, resolved.

    Left out: where things lie, how they are logged, on what device, batch sizes of scoring, and
    how ability is measured where it is not.
    """
    plain = OmegaConf.create({name: cfg._get_node(name) for name in cfg if name != "hydra"})
    values = OmegaConf.to_container(plain, resolve=True)
    assert isinstance(values, dict)
    for name in ("paths", "logger", "run", "device"):
        values.pop(name, None)
    if isinstance(values.get("data"), dict):
        values["data"].pop("folder", None)
    ability = values.pop("ability", None)
    if isinstance(values.get("evaluation"), dict):
        values["evaluation"].pop("batch_tokens", None)
        if values["evaluation"].pop("ability", None) and isinstance(ability, dict):
            values["ability"] = {
                name: value
                for name, value in ability.items()
                if name not in ("batch_tokens", "data", "allow_code_execution")
            }
    return {str(name): value for name, value in values.items()}


def run_key(cfg: DictConfig) -> str:
    """16 hex digits that name an experiment: equal for equal configs."""
    return content_key(config_values(cfg))


METHOD_PARTS = ("method/", "training", "model.unlearning.", "model.unierase.", "editing.")
"""Where a command says how a method is to work, but for ``method.`` itself."""


def method_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """What a command's ``overrides`` set of how its method works, but the method's name.

    ``method.lr=1e-4`` is ``{"lr": 1e-4}``; what is set elsewhere (`model.unlearning.lr=1e-4`,
    `+method/corpus=wikipedia`, `+training=published`) keeps its whole name.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    settings = {
        override.key_or_group.removeprefix("method."): override.value()
        for override in parsed
        if override.key_or_group.startswith(("method.", *METHOD_PARTS))
    }
    settings.pop("name", None)
    return settings
