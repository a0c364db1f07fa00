"""Scoring cases in processes beside the one that runs the model."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.process import die_with, interrupts_held, usable_cores
from brats_train.evaluation.case_scores import CaseScores, ScoringTask, score_case
from brats_train.runtime.distributed import World

__all__ = ["Progress", "score_all"]

MAX_PROCESSES = 8
MIN_CASES_FOR_PROCESSES = 4  # they take a second or two to start
Progress = Callable[[float, int], None]


def score_all(
    tasks: Iterator[ScoringTask],
    num_tasks: int,
    world: World,
    progress: Progress,
    num_spare_cores: int,
) -> tuple[list[CaseScores], list[Fault]]:
    """Scores tasks in processes beside this one, which asks the model for the next task meanwhile.

    A fault of one case does not hide those of the others. What is in memory is bounded: tasks are
    made no faster than they are scored.

    Args:
        tasks: This rank's tasks, made one by one.
        num_tasks: How many there are.
        world: This process among its peers, who share the cores.
        progress: Called with the number of tasks done and of all, at the start as well.
        num_spare_cores: Cores left to this process.

    Returns:
        The scores, and the faults of the cases that have none.

    Raises:
        BratsError: A process died.
    """
    processes = min(
        max(1, usable_cores() // world.size - num_spare_cores), num_tasks, MAX_PROCESSES
    )
    scored: list[CaseScores] = []
    faults: list[Fault] = []

    def take(result: Callable[[], CaseScores]) -> None:
        try:
            scored.append(result())
        except DataFaults as error:
            faults.extend(error.faults)
        progress(len(scored) + len(faults), num_tasks)

    progress(0, num_tasks)
    if num_tasks < MIN_CASES_FOR_PROCESSES:
        for task in tasks:
            take(lambda task=task: score_case(task))  # type: ignore[misc]
    else:
        with _process_pool(processes) as pool:
            pending: deque[Future[CaseScores]] = deque()
            for task in tasks:
                with interrupts_held():  # it may start a process
                    pending.append(pool.submit(score_case, task))
                while len(pending) > processes + 1:
                    take(pending.popleft().result)
            while pending:
                take(pending.popleft().result)
    return scored, faults


@contextmanager
def _process_pool(num: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")  # a fork copies locks that threads hold
    pool = ProcessPoolExecutor(
        num, mp_context=context, initializer=die_with, initargs=(os.getpid(), signal.SIGKILL)
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise BratsError(
            "A process that scores cases died. The system may have run out of memory."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
