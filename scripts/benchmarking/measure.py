"""Configs, processes and memory of a measurement."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from unierase.app import config_root
from unierase.run_names import register_resolvers

if TYPE_CHECKING:
    from unierase.models.language_model import LanguageModel
    from unierase.rows import BenchmarkData, Row


def composed(*overrides: str) -> DictConfig:
    """The config of a run."""
    register_resolvers()
    with initialize_config_dir(str(config_root()), version_base="1.3"):
        return compose("config", list(overrides))


def untaught(model: str, data: str = "fictional") -> tuple[LanguageModel, BenchmarkData]:
    """A base model that was taught nothing (weights do not change speed), and all rows of a data
    set of authors."""
    cfg = composed(f"model={model}", f"data={data}", "data.retain_authors=null")
    rows = instantiate(cfg.data).load()
    texts = [text for row in rows.full for text in (row.question, row.answer)]
    return instantiate(cfg.model.source).base(texts, "auto"), rows


class NoTargets:
    """For methods that ask for no retrained model."""

    def retrained(self, rows: tuple[Row, ...]) -> LanguageModel:
        raise AssertionError("nothing here asks for a retrained model")


def alone(function: Callable[..., Any], *arguments: Any, returns_memory: bool = False) -> Any:
    """``function(*arguments)`` in a new process, so that peaks of memory do not mix.

    returns_memory: glibc gives memory back as soon as it is free, so that a peak is of what is
    alive and not of what was alive and lies about in pieces.
    """
    with _environment(returns_memory), multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


@contextmanager
def _environment(returns_memory: bool) -> Iterator[None]:
    name = "MALLOC_MMAP_THRESHOLD_"
    if returns_memory:
        os.environ[name] = str(2**16)
    try:
        yield
    finally:
        os.environ.pop(name, None)
