"""Memory: the C allocator's thresholds, and how much was held at most."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Thresholds that decide a third of the training time on a CPU: glibc keeps freed memory.

    Activations are allocated and freed at every step; by default each of them is mapped anew,
    and a training step spends a third of its time in page faults. Elsewhere nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library than glibc
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 2**28)


def reset_peak_memory() -> None:
    """Let ``peak_memory`` count from now on, where the system can (Linux, GPUs)."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR.exists():
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # what is free and kept is nobody's
            trim(0)
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
