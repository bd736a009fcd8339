"""Files that are either whole or not there: atomic writes, cached folders, content keys."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from unierase.errors import UserError

log = logging.getLogger(__name__)

MARKER = "complete.json"


def content_key(values: Any) -> str:
    """16 hex digits that stand for JSON ``values``; equal values give equal keys everywhere."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as a whole or, when killed or out of space, not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, values: Any) -> None:
    """Write ``values`` as JSON, atomically; floats keep every bit."""
    write_text(path, json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON in ``path``; a UserError naming the file when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error


def write_json_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json_lines(path: Path) -> list[Any]:
    """One JSON value a line; a UserError names the file and the line that is not."""
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise UserError(f"{path}:{number}: not JSON ({error})") from error
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    return rows


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != MARKER
    }


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` was built to its end and every file still has its size."""
    try:
        return bool(read_json(folder / MARKER) == _sizes(folder))
    except UserError:
        return False


def build_folder(folder: Path, build: Callable[[Path], None]) -> Path:
    """``folder`` as ``build`` fills it, built at most once and never seen half-done.

    Processes that ask for the same folder wait for the one that builds it; its lock is released
    by the system when it dies. A folder that is not complete (a killed process, a damaged disk)
    is built anew.
    """
    from filelock import FileLock

    if is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if is_complete(folder):
            return folder
        if folder.exists():
            log.warning("%s is incomplete or damaged; building it again", folder)
            shutil.rmtree(folder)
        replace_folder(folder, build)
    return folder


def replace_folder(folder: Path, build: Callable[[Path], None]) -> None:
    """Fill a new folder by ``build`` and put it in the place of ``folder``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        build(temporary)
        write_json(temporary / MARKER, _sizes(temporary))
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
