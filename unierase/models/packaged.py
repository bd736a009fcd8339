"""Models that installed Python packages carry, for machines without the hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from unierase.errors import UserError


def packaged_folder(option: str, model: str, file: str) -> str:
    """``package:NAME`` becomes the folder of ``file`` in that package; other names stay.

    Raises a UserError that names ``option`` where there is no such package or file.
    """
    if not model.startswith("package:"):
        return model
    name = model.removeprefix("package:")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{option}={model}: no package {name} is installed (pip install {name})")
    found = sorted(Path(spec.submodule_search_locations[0]).rglob(file), key=lambda p: len(p.parts))
    if not found:
        raise UserError(f"{option}={model}: package {name} holds no {file}")
    return str(found[0].parent)
