"""Work on a batch in pieces, a thread a piece, each computing by itself.

PyTorch's own threads share every operation and wait for each other after it, which for many small
operations in a row is most of the time; and the temporaries of a whole batch go through memory,
while those of a piece stay in the caches.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import torch

__all__ = ["run_in_pieces"]


def run_in_pieces(function: Callable[[slice], None], num_samples: int, piece: int) -> None:
    """Calls `function` for slices of `piece` samples that cover `num_samples`, in as many threads
    as PyTorch would use, without gradients. Raises what a call raises."""

    def run(start: int) -> None:
        with torch.no_grad():  # a setting of each thread
            function(slice(start, min(start + piece, num_samples)))

    starts = range(0, num_samples, piece)
    for _ in _threads(torch.get_num_threads(), os.getpid()).map(run, starts):
        pass


@cache
def _threads(num_threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of process number `process` (a fork leaves them behind) that use one core each."""
    all_started = Barrier(num_threads)

    def start() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread takes up the setting when it first asks for it
        all_started.wait()

    pool = ThreadPoolExecutor(num_threads, "piece", start)
    for _ in pool.map(int, range(num_threads)):  # a thread is started for each task given at once
        pass
    # The setting is a thread's own, but also what threads that ask for the first time take up.
    torch.set_num_threads(num_threads)
    return pool
