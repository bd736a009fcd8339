"""Model-written programs: what passes, and what none of them gets away with."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from benchmarks.ability.programs import LAYERS, confinement, pass_at_k, run_program
from benchmarks.local import read_rows

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement is Linux's")


@pytest.fixture(scope="module")
def confined() -> None:
    lacking = [LAYERS[layer] for layer, held in confinement().items() if not held]
    if lacking:
        pytest.skip(f"this system does not confine {'; '.join(lacking)}")


def test_a_program_that_reaches_its_end_passes() -> None:
    assert run_program("assert 1 + 1 == 2").passed
    assert not run_program("assert 1 + 1 == 3").passed
    assert not run_program("this is no program").passed
    assert run_program("import math, re, typing, collections, hashlib, threading").passed
    thread = "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()"
    assert run_program(thread).passed


def test_it_may_write_in_its_own_folder() -> None:
    assert run_program("open('a', 'w').write('x'); assert open('a').read() == 'x'").passed


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "print('passed'); raise SystemExit",
        # What it finds by looking around is not the token.
        "import os, sys, gc\n"
        "told = int(sys.argv[2])\n"
        "for name, value in [*os.environ.items(), *globals().items()]:\n"
        "    os.write(told, str(value).encode())\n"
        "os._exit(0)",
        "while True: pass",
        "import time; time.sleep(60)",
        "x = bytearray(3 * 2**30)",
        "open('big', 'wb').write(bytes(2**22))",
        "open('/proc/self/cmdline').read()",
        "import os; os.listdir('/')",
        "import os; os.fork()",
        "import os\nwhile True: os.fork()",
        "import os; os.posix_spawn('/bin/true', ['true'], {})",
        "import subprocess; subprocess.run(['/bin/sh', '-c', 'true'], check=True)",
        "import os; os.execv('/bin/true', ['true'])",
        "import ctypes; assert ctypes.CDLL(None).fork() >= 0",
    ],
)
def test_no_way_out(program: str, confined: None) -> None:
    start = time.monotonic()
    assert not run_program(program, seconds=3).passed
    assert time.monotonic() - start < 10


def test_files_outside_stay_out_of_reach(tmp_path: Path, confined: None) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    assert not run_program(f"open({str(secret)!r}).read()").passed
    assert not run_program(f"open({str(tmp_path / 'new')!r}, 'w')").passed
    assert not run_program(f"import os; os.remove({str(secret)!r})").passed
    assert not run_program(f"import os; os.rename({str(secret)!r}, 'mine')").passed
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_no_network(confined: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = "import socket; socket.create_connection(('127.0.0.1', {}), 1)"
        assert not run_program(connect.format(port)).passed
    send = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    assert not run_program(send + f"s.sendto(b'x', ('127.0.0.1', {port}))").passed


def test_no_signals_to_others(confined: None) -> None:
    assert not run_program(f"import os; os.kill({os.getpid()}, 0)").passed
    run_program("import os; os.kill(os.getppid(), 9); os.killpg(0, 9)")
    assert run_program("").passed  # we are still here, and so is what runs programs


def test_nothing_is_left_behind(confined: None) -> None:
    before = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    endless = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"
    run_program(endless, seconds=1)
    time.sleep(0.2)
    new = {int(name) for name in os.listdir("/proc") if name.isdigit()} - before
    names = [p.read_bytes() for n in new if (p := Path(f"/proc/{n}/cmdline")).exists()]
    assert not [name for name in names if b"confined.py" in name]


def test_pass_at_one() -> None:
    right, wrong = "def f(): return 1", "def f(): return 2"
    assert pass_at_k(["assert f() == 1"], [[right]], [1]) == {"pass@1": 1.0}
    assert pass_at_k(["assert f() == 1"] * 2, [[right], [wrong]], [1]) == {"pass@1": 0.5}
    with pytest.raises(ValueError, match="pass@1"):
        pass_at_k([""], [[""]], [1, 10])


def test_the_solutions_of_humaneval_pass(real_data: str) -> None:
    problems = read_rows(Path(real_data) / "ability/humaneval/HumanEval.jsonl", ())[::8]
    for row in problems:
        test = f"{row['test']}\ncheck({row['entry_point']})"
        assert run_program(f"{row['prompt']}{row['canonical_solution']}\n{test}").passed
        assert not run_program(f"{row['prompt']}    return 'nothing'\n{test}").passed
