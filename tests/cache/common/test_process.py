"""What a process may use, and what it keeps."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from brats_cache.common.process import usable_cores
from tests.commands import PATIENCE

ALLOCATE = """
import resource, sys
import numpy as np
from brats_cache.common.process import keep_freed_memory

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


SLOW_TO_IMPORT = """
import multiprocessing, sys, time

time.sleep(0.5)  # a child comes through here before it does anything else

if __name__ == "__main__":
    from brats_cache.common.process import interrupts_held

    children = [multiprocessing.get_context("spawn").Process(target=print) for _ in range(2)]
    with interrupts_held():
        for child in children:
            child.start()
    try:
        print("started", flush=True)
        time.sleep(30)
    except KeyboardInterrupt:
        for child in children:
            child.join()
        sys.exit(sum(child.exitcode for child in children))
"""


@pytest.mark.kills
def test_an_interrupt_reaches_no_child_even_while_it_imports(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SLOW_TO_IMPORT)
    process = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends Ctrl-C to the whole group
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
