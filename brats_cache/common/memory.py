"""Whether an error means that memory ran out: the machine's, what a limit leaves of it, a GPU's."""

from __future__ import annotations

import errno
import re

__all__ = ["is_out_of_gpu_memory", "is_out_of_memory"]

# Of NumPy, OpenCV, torch on a CPU, C++, Python's threads, the linker of libraries, and of oneDNN,
# which keeps the reason to itself; what it does not support fails at a primitive's descriptor.
_WORDS = re.compile(
    "allocate memory|Insufficient memory|not enough memory|std::bad_alloc|start new thread"
    "|failed to map segment|could not (create|execute) a primitive(?! descriptor)"
)
# Of torch on a GPU, of cuDNN, and of cuBLAS.
_WORDS_OF_GPUS = re.compile("out of memory|unable to find an engine|ALLOC(ATION)?_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is one of the many that libraries make of memory that ran out."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return _WORDS.search(str(error)) is not None or is_out_of_gpu_memory(error)


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether an error means that a GPU's memory was too small."""
    return isinstance(error, RuntimeError) and _WORDS_OF_GPUS.search(str(error)) is not None
