"""Whether an error means that the memory of the machine, or what a limit leaves of it, ran out."""

from __future__ import annotations

import errno

__all__ = ["is_out_of_memory"]

# Of NumPy, OpenCV, torch on a CPU, C++, Python's threads, and the linker of libraries.
_WORDS = (
    "allocate memory",
    "Insufficient memory",
    "not enough memory",
    "std::bad_alloc",
    "start new thread",
    "failed to map segment",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is one of the many that libraries make of memory that ran out."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return any(word in str(error) for word in _WORDS)
