"""A hundred thousand hostile files of every kind: each is read or refused with a message.

They are those of `tests.hostile`, read in processes of limited memory and time; a crash, a hang, a
file elsewhere or another exception than `BratsError` ends the soak with the input's number.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.commands import ROOT
from tests.hostile.kinds import SHARES

BATCH = 5000  # of one process; some take seconds to start


class Batch(NamedTuple):
    """What became of some inputs of a kind, and the most memory that their process took."""

    kind: str
    num_read: int
    num_refused: int
    mib: int
    seconds: float


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak fuzz")
    parser.add_argument("--inputs", type=int, default=100_000, help="Of all kinds together.")
    parser.add_argument("--first", type=int, default=0, help="Number of the first input.")
    parser.add_argument("--kind", action="append", choices=[*SHARES], help="Only these.")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    shares = {kind: SHARES[kind] for kind in options.kind or SHARES}
    tasks = [
        task
        for kind, share in shares.items()
        for task in _batches(kind, options.first, options.inputs * share // sum(shares.values()))
    ]
    with ThreadPoolExecutor(options.workers) as pool:
        batches = list(pool.map(lambda task: _read_batch(*task), tasks))
    print(f"{'kind':<12}{'inputs':>8}{'read':>8}{'refused':>8}{'MiB':>6}{'seconds':>9}")
    for kind in shares:
        _print_row(kind, [batch for batch in batches if batch.kind == kind])
    _print_row("all", batches)


def _batches(kind: str, first: int, count: int) -> Iterator[tuple[str, int, int]]:
    for start in range(0, count, BATCH):
        yield kind, first + start, min(BATCH, count - start)


def _print_row(name: str, batches: Sequence[Batch]) -> None:
    num_read = sum(batch.num_read for batch in batches)
    num_refused = sum(batch.num_refused for batch in batches)
    num, mib = num_read + num_refused, max(batch.mib for batch in batches)
    seconds = sum(batch.seconds for batch in batches)
    print(f"{name:<12}{num:>8}{num_read:>8}{num_refused:>8}{mib:>6}{seconds:>9.0f}")


def _read_batch(kind: str, first: int, count: int) -> Batch:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile", kind, str(first), str(count)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode:
        guilty = int(lines[-1].split()[1]) + 1 if lines else first
        raise AssertionError(f"{kind} {guilty}: exit code {done.returncode}\n{done.stderr[-5000:]}")
    num_read, num_refused, mib = map(int, re.findall(r"\d+", lines[-1]))
    return Batch(kind, num_read, num_refused, mib, time.monotonic() - started)
