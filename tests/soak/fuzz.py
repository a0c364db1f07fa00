"""Thousands of hostile scans and caches (--inputs 12000): each is read or refused with a message.

They are those of `tests.cache.hostile`, read in processes of limited memory and time; a crash, a
hang, a file elsewhere or another exception than `BratsError` ends the soak with the input's number.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.commands import ROOT

BATCH = 500
MAX_RESIDENT = 1 << 30


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak fuzz")
    parser.add_argument("--inputs", type=int, default=12_000)
    parser.add_argument("--first", type=int, default=0, help="Number of the first input.")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    each = options.inputs // 2
    tasks = [
        (kind, options.first + start, min(BATCH, each - start))
        for kind in ("scans", "caches")
        for start in range(0, each, BATCH)
    ]
    with ThreadPoolExecutor(options.workers) as pool:
        counts = list(pool.map(lambda task: _read_batch(*task), tasks))
    read, refused = (sum(column) for column in zip(*counts, strict=True))
    resident = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"{read + refused} inputs: {read} read, {refused} refused, none else; ", end="")
    print(f"the largest process had {resident >> 20} MiB")
    assert resident <= MAX_RESIDENT, "more than 1 GiB"


def _read_batch(kind: str, first: int, count: int) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.cache.hostile", kind, str(first), str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode:
        guilty = int(lines[-1]) + 1 if lines else first
        raise AssertionError(f"{kind} {guilty}: exit code {done.returncode}\n{done.stderr}")
    read, refused = map(int, re.findall(r"\d+", lines[-1]))
    return read, refused
