"""Names of run directories: they tell what ran, and equal experiments share one."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf


def run_subdir(cfg: DictConfig) -> str:
    """Such as "tofu-forget01/tiny/batch/unierase/seed0-1a2b3c4d", below the runs folder."""
    from unierase.run_values import run_key

    name = f"{cfg.data.name}-{cfg.data.split}/{cfg.model.name}/{cfg.scenario.name}"
    return f"{name}/{cfg.method.name}/seed{cfg.seed}-{run_key(cfg)[:8]}"


def register_resolvers() -> None:
    """Make ``${run_dir:}``, ``${run_subdir:}`` and ``${times:a,b}`` known to the config."""
    OmegaConf.register_new_resolver("times", lambda a, b: a * b, replace=True)
    OmegaConf.register_new_resolver(
        "run_dir", lambda _root_: f"{_root_.paths.runs}/{run_subdir(_root_)}", replace=True
    )
    OmegaConf.register_new_resolver("run_subdir", lambda _root_: run_subdir(_root_), replace=True)
