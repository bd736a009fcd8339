"""HumanEval's programs, written by a model and run in a confined process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

DRIVER = Path(__file__).with_name("confined.py")
LAYERS = {
    "limits": "time, memory, sizes of files",
    "namespaces": "other processes, networks",
    "files": "files outside its own empty folder",
    "processes": "processes of its own",
}
SECONDS = 5
"""lm-eval's own evaluator gives three; a loaded machine is to change no result."""
LIMITS = {
    "RLIMIT_CPU": SECONDS,
    "RLIMIT_AS": 2**30,
    "RLIMIT_FSIZE": 2**20,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_CORE": 0,
}


@dataclass(frozen=True)
class Outcome:
    """passed: the program reached its end. confined: by layer, whether it took hold; empty where
    the process did not come so far."""

    passed: bool
    confined: dict[str, bool]


def run_program(program: str, seconds: float = 2 * SECONDS) -> Outcome:
    """Run ``program`` by itself and see whether it reaches its end.

    It gets no input, no environment, no installed packages, an empty folder to write in, and is
    killed with everything it started after ``seconds``. ``confined.py`` says what else it lacks.
    """
    token = secrets.token_hex(16)
    request, asked = os.pipe()
    told, answer = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(DRIVER), str(request), str(answer)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(request, answer),
            cwd=folder,
            env={},
            start_new_session=True,
        )
        os.close(request)
        os.close(answer)
        try:
            with os.fdopen(asked, "w") as file:
                json.dump({"program": program, "token": token, "limits": LIMITS}, file)
            said = _read(told, time.monotonic() + seconds)
        finally:
            os.close(told)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    first, _, rest = said.partition("\n")
    try:
        confined = json.loads(first)
    except json.JSONDecodeError:
        confined = {}
    return Outcome(rest == token, confined)


def _read(handle: int, until: float) -> str:
    """What is written to ``handle`` until it is closed, or until a time."""
    parts = []
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0 and selector.select(left):
            part = os.read(handle, 65536)
            if not part:
                break
            parts.append(part)
    return b"".join(parts).decode(errors="replace")


def confinement() -> dict[str, bool]:
    """By layer, whether it takes hold on this machine."""
    return {layer: False for layer in LAYERS} | run_program("").confined


def pass_at_k(
    references: Sequence[str], predictions: Sequence[Sequence[str]], k: Sequence[int] | None = None
) -> dict[str, float]:
    """pass@1, under the name and with the arguments of lm-eval's own: the share of programs that
    pass the problem's tests. references: tests; predictions: programs, of each problem its own."""
    if list(k or [1]) != [1]:
        raise ValueError("one program a problem gives pass@1 and nothing else")
    passed = [
        run_program(f"{program}\n{tests}").passed
        for tests, programs in zip(references, predictions, strict=True)
        for program in programs
    ]
    return {"pass@1": sum(passed) / len(passed)}


def build_predictions(
    resps: Sequence[Sequence[str]], docs: Sequence[dict[str, str]]
) -> list[list[str]]:
    """The problem's beginning and what was written behind it."""
    return [
        [doc["prompt"] + text for text in texts] for texts, doc in zip(resps, docs, strict=True)
    ]


def build_predictions_instruct(
    resps: Sequence[Sequence[str]], docs: Sequence[dict[str, str]]
) -> list[list[str]]:
    """The same, up to the end of the code block."""
    return build_predictions([[text.split("```")[0] for text in texts] for texts in resps], docs)
