"""What of a config decides a run's result, and the key that stands for it."""

from __future__ import annotations

from typing import Any

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
