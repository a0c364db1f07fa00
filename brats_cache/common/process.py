"""What a process may use and how it behaves towards the system: cores, memory, its parent's end."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

__all__ = ["die_with", "interrupts_held", "keep_freed_memory", "usable_cores"]

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_KEPT = 1 << 30  # bytes
_OLD_LIMIT = 32 << 20  # the most that glibc before 2.35 allows for M_MMAP_THRESHOLD


def usable_cores() -> int:
    """Processors this process may run on, which containers and clusters limit."""
    return len(os.sched_getaffinity(0))


def die_with(parent: int, number: signal.Signals) -> None:
    """Asks the kernel to send this process `number` when the parent ends, however that comes
    about."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it ended before the kernel was asked
        os._exit(1)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """A context to start processes in that never see Ctrl-C, not even while they import: it is
    their parent's to handle. There it waits until the end, unless other threads run."""
    resource_tracker.ensure_running()  # Python 3.11 lets interrupts through after starting it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def keep_freed_memory() -> None:
    """Lets the allocator use the memory of one array for the next instead of handing it back to the
    kernel, which clears every page it gives out: that takes longer than reading the scans, and a
    seventh of a training step on a CPU. Nothing happens where the C library is not glibc."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT) or libc.mallopt(_M_MMAP_THRESHOLD, _OLD_LIMIT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
