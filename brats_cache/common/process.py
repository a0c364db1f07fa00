"""The process and the system: cores it may use, memory it keeps, signals, the end of its parent."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

__all__ = [
    "die_with",
    "interrupts_held",
    "keep_freed_memory",
    "module_environment",
    "usable_cores",
]

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_KEPT = 1 << 30  # bytes
_OLD_LIMIT = 32 << 20  # the most that glibc before 2.35 allows for M_MMAP_THRESHOLD


def usable_cores() -> int:
    """Returns the number of cores this process may run on, which containers and clusters limit."""
    return len(os.sched_getaffinity(0))


def module_environment() -> dict[str, str]:
    """The environment in which `python -m` finds this program; a checkout need not be installed."""
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": search}


def die_with(parent: int, number: signal.Signals) -> None:
    """Asks the kernel to send this process a signal when its parent ends, for whatever reason.

    Args:
        parent: Process id of the parent.
        number: The signal.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(1)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back while processes are started in this context.

    They inherit that and never see it, not even while they import: their parent handles it. Here
    the signal waits until the context ends, unless other threads run.
    """
    resource_tracker.ensure_running()  # Python 3.11 lets interrupts through after starting it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def keep_freed_memory() -> None:
    """Lets the allocator reuse the memory of freed arrays instead of returning it to the kernel.

    The kernel clears every page it gives out, which takes longer than reading the scans, and a
    seventh of a training step on a CPU. Nothing happens where the C library is not glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT) or libc.mallopt(_M_MMAP_THRESHOLD, _OLD_LIMIT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
