"""Runs one program in a process that gives up what it does not need. Started by ``programs.py``;
standard library alone, Linux alone beyond the limits.

What it arrives with: a descriptor to read a request from, as JSON {program, token, limits}, and one
to write to: first, as a line, the layers that took hold; then, if the program reached its end, the
token. It gives up, in this order: time, memory, file sizes (setrlimit); other processes and all
networks (namespaces); all files but Python's own and its empty working directory (Landlock);
making processes at all (seccomp).
"""

import ctypes
import json
import os
import platform
import resource
import struct
import sys
from errno import ENOSYS, EPERM

CLONE_NEWUSER, CLONE_NEWPID = 0x10000000, 0x20000000
CLONE_NEWNET, CLONE_NEWIPC = 0x40000000, 0x8000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ = 1 << 2 | 1 << 3  # a file's content, a folder's names
EXECUTE = 1 << 0
ALL_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Kinds of access to files that a version of Landlock knows; later versions know version 5's."""
SYSTEM = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom")
# By machine: its audit number, calls that make processes or programs, clone (allowed for threads).
CALLS = {
    "x86_64": (0xC000003E, (57, 58, 59, 322, 101), 56),
    "aarch64": (0xC00000B7, (221, 281, 117), 220),
}
CLONE3, CLONE_THREAD = 435, 0x10000

libc = ctypes.CDLL(None, use_errno=True)


def limit(limits: dict[str, int]) -> bool:
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
    return True


def leave_namespaces() -> bool:
    """Go on as the first process of a namespace: what it leaves behind ends with it."""
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC):
        return False
    child = os.fork()
    if child:
        os._exit(0 if os.waitpid(child, 0)[1] == 0 else 1)
    return True


def leave_files(folder: str) -> bool:
    """Nothing is readable but Python and system libraries, nothing writable but ``folder``."""
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return False
    known = ALL_BY_VERSION[max(v for v in ALL_BY_VERSION if v <= version)]
    network = 3 if version >= 4 else 0  # binding and connecting
    scoped = 3 if version >= 6 else 0  # sockets without a file, signals
    attributes = struct.pack("QQQ", known, network, scoped)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    rules = libc.syscall(LANDLOCK_CREATE, attributes, size, 0)
    for path, allowed in [
        *((p, READ | EXECUTE) for p in (*SYSTEM, sys.base_prefix)),
        (folder, known),
    ]:
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if not os.path.isdir(path):
            allowed &= 1 << 0 | 1 << 1 | 1 << 2  # the rest is for folders
        if path.startswith("/dev/"):
            allowed |= 1 << 1
        if libc.syscall(LANDLOCK_ADD, rules, 1, struct.pack("=QI", allowed, handle), 0):
            return False
        os.close(handle)
    done = libc.syscall(LANDLOCK_RESTRICT, rules, 0) == 0
    os.close(rules)
    return done


def leave_processes() -> bool:
    """No new processes and programs; threads stay."""
    if platform.machine() not in CALLS:
        return False
    audit, refused, clone = CALLS[platform.machine()]
    load, equal, bits, at_least, answer = 0x20, 0x15, 0x45, 0x35, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x00050000 | EPERM, 0x00050000 | ENOSYS
    # (operation, jump if true, jump if not, value); a jump of None goes to the last line, refuse.
    lines: list[tuple[int, int | None, int | None, int]]
    lines = [(load, 0, 0, 4), (equal, 0, None, audit), (load, 0, 0, 0)]
    # A second way to number calls exists on x86; nothing here needs it.
    lines.append((at_least, None, 0, 0x40000000))
    # Its flags lie in memory, out of a filter's reach: libraries fall back to clone.
    lines += [(equal, 0, 1, CLONE3), (answer, 0, 0, unknown)]
    lines += [(equal, None, 0, number) for number in refused]
    lines += [(equal, 0, 2, clone), (load, 0, 0, 16), (bits, 0, None, CLONE_THREAD)]
    lines += [(answer, 0, 0, allow), (answer, 0, 0, refuse)]
    program = [
        (operation, *(len(lines) - 2 - i if jump is None else jump for jump in (yes, no)), value)
        for i, (operation, yes, no, value) in enumerate(lines)
    ]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code)
    filters = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(buffer))
    return libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters, 0, 0) == 0


def main() -> None:
    asked, told = int(sys.argv[1]), int(sys.argv[2])
    with os.fdopen(asked) as file:
        request = json.load(file)
    layers = {"limits": limit(request["limits"])}
    if sys.platform == "linux":
        layers["namespaces"] = leave_namespaces()
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        layers["files"] = leave_files(os.getcwd())
        layers["processes"] = leave_processes()
    os.write(told, (json.dumps(layers) + "\n").encode())
    exec(compile(request["program"], "program", "exec"), {"__name__": "program"})
    os.write(told, request["token"].encode())


main()
