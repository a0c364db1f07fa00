"""Memory that ran out is known from what libraries make of it."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
import torch

from brats_cache.common.memory import is_out_of_memory

FAIL = """
import resource, threading, mmap, cv2, numpy, torch
from brats_cache.common.memory import is_out_of_memory
image = numpy.zeros((1 << 14, 1 << 14), numpy.uint8)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 22), resource.RLIM_INFINITY))
threading.stack_size(1 << 30)
for cause in (
    lambda: numpy.ones(1 << 30),
    lambda: torch.ones(1 << 30),
    lambda: bytearray(1 << 30),
    lambda: mmap.mmap(-1, 1 << 30),
    lambda: threading.Thread(target=print).start(),
    lambda: cv2.resize(image, (1 << 15, 1 << 15)),
):
    try:
        cause()
    except Exception as error:
        print(is_out_of_memory(error), repr(error).splitlines()[0])
"""


def test_real_allocations_that_fail_are_known() -> None:
    done = subprocess.run([sys.executable, "-c", FAIL], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert [line for line in lines if not line.startswith("True")] == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a convolution"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("a memory"), False),
        (KeyError("x"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_other_errors_are_told_from_it(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
