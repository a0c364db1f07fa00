"""What a process may use, and what it keeps."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from brats_cache.process import usable_cores

ALLOCATE = """
import resource, sys
import numpy as np
from brats_cache.process import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for number in range(30):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [np.ones(3 << 20) for _ in range(4)]  # 96 MiB, more than the allocator keeps by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_cores_are_those_this_process_may_use() -> None:
    assert usable_cores() == len(os.sched_getaffinity(0))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_used_again() -> None:
    faults = {
        mode: int(subprocess.check_output([sys.executable, "-c", ALLOCATE, mode], text=True))
        for mode in ("plain", "keep")
    }
    assert faults["keep"] < 0.1 * faults["plain"]
