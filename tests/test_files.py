"""Files are whole or not there."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from unierase import files
from unierase.errors import UserError


def test_keys() -> None:
    assert files.content_key({"a": 1, "b": [1.5]}) == files.content_key({"b": [1.5], "a": 1})
    assert files.content_key({"a": 1}) != files.content_key({"a": 2})


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, {"x": 0.1})

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.write_json(path, {"x": 2})
    assert files.read_json(path) == {"x": 0.1}
    assert os.listdir(tmp_path) == ["value.json"]


def test_corrupt_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "value.jsonl"
    files.write_json_lines(path, [{"a": "é"}, 2])
    assert files.read_json_lines(path) == [{"a": "é"}, 2]
    path.write_text('{"a": 1}\n{"a":')
    with pytest.raises(UserError, match=r"value\.jsonl:2"):
        files.read_json_lines(path)
    with pytest.raises(UserError, match=r"value\.jsonl: not JSON"):
        files.read_json(path)
    with pytest.raises(UserError, match="no such file"):
        files.read_json(tmp_path / "none.json")


def test_a_folder_is_built_once(tmp_path: Path) -> None:
    built = []

    def build(path: Path) -> None:
        built.append(path)
        (path / "weights").write_text("abc")

    folder = tmp_path / "cache" / "key"
    assert files.build_folder(folder, build) == files.build_folder(folder, build) == folder
    assert len(built) == 1
    # Damaged: one file shorter than it was.
    (folder / "weights").write_text("a")
    files.build_folder(folder, build)
    assert len(built) == 2 and (folder / "weights").read_text() == "abc"


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(path: Path) -> None:
        (path / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.build_folder(tmp_path / "key", build)
    assert not [p for p in tmp_path.iterdir() if not p.name.endswith(".lock")]


def _build_slowly(folder: str, log: str) -> None:
    def build(path: Path) -> None:
        with open(log, "a") as file:
            file.write("built\n")
        time.sleep(0.5)
        (path / "x").write_text("x")

    files.build_folder(Path(folder), build)


def test_two_processes_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path / "key"), str(tmp_path / "log"))
    processes = [context.Process(target=_build_slowly, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text() == "built\n"
