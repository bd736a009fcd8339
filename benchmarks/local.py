"""Reading a benchmark's files from a local folder, or its rows from the hub."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unierase.errors import UserError


def find_file(folder: Path, name: str) -> Path | None:
    """``name`` in ``folder``, plain or gzipped."""
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    return None


def read_rows(path: Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    """JSON lines with at least ``fields``; a malformed one is an error naming file and line."""
    opener = gzip.open if path.suffix == ".gz" else open
    rows = []
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{number}: not a JSON object ({error})") from error
            missing = [f for f in fields if not isinstance(row, dict) or not row.get(f)]
            if missing:
                raise UserError(f"{path}:{number}: no {', '.join(missing)} in this row")
            rows.append(row)
    return rows


def data_folder(folder: str, name: str) -> Path:
    """The folder of benchmark ``name`` below ``paths.data``."""
    root = Path(folder).expanduser()
    if not (root / name).is_dir():
        raise UserError(
            f"paths.data={folder}: no folder {name} in it; set paths.data=FOLDER or UNLEARN_DATA "
            "to a copy of the hub's files, or paths.data=null to load them from the hub"
        )
    return root / name


def local_rows(folder: str, name: str, file: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of ``file`` of benchmark ``name`` below ``paths.data``; an error where it is not."""
    path = find_file(data_folder(folder, name), file)
    if path is None:
        raise UserError(f"paths.data={folder}: no {name}/{file} in it")
    return read_rows(path, fields)


def hub_rows(hub: str, config: str, split: str = "train") -> list[dict[str, Any]]:
    """All rows of one config of a hub data set."""
    from datasets import load_dataset

    try:
        return list(load_dataset(hub, config, split=split))
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"data: cannot load {hub} ({config}) from the hub ({type(error).__name__}); set "
            "paths.data=FOLDER or UNLEARN_DATA to a copy of its files, or use data=fictional"
        ) from error
