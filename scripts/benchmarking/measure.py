"""Configs, processes and memory of a measurement."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from unierase.app import config_root
from unierase.run_names import register_resolvers

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def composed(*overrides: str) -> DictConfig:
    """The config of a run."""
    register_resolvers()
    with initialize_config_dir(str(config_root()), version_base="1.3"):
        return compose("config", list(overrides))


def reset_peak_memory() -> None:
    """Let ``peak_memory`` count from now on, where the system can (Linux, GPUs)."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR.exists():
        CLEAR.write_text("5")


def peak_memory() -> int:
    """Bytes: what this process has held at most so far; on a GPU, there."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if CLEAR.exists():
        (line,) = (s for s in STATUS.read_text().splitlines() if s.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in a new process, so that peaks of memory do not mix."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)
