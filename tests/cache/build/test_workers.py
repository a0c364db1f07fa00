"""Every task is done once, and whatever goes wrong in a process is told by the task's name."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from brats_cache.build.workers import Workers
from brats_cache.common.errors import BratsError, DataFaults, Fault


def work(task: int) -> tuple[int, int]:
    if task == -1:
        os.kill(os.getpid(), signal.SIGKILL)
    if task == -2:
        os._exit(3)
    if task == -3:
        fault = Fault(case="x", path=Path("x_t1.nii"), found="a hole", expected="none")
        raise DataFaults([fault], "Mend it.")
    if task == -4:
        raise Unpicklable(lambda: None)
    if task == -5:
        bytearray(1 << 60)
    time.sleep(0.001 * (task % 3))
    return task * task, os.getpid()


class Unpicklable(Exception):
    pass


def name(task: int) -> str:
    return f"case\n{task}"


def test_tasks_are_shared_out_and_each_is_done_once() -> None:
    with Workers(2) as workers:
        for _ in range(2):  # the processes serve more than one round
            found = dict(workers.map(work, range(30), name))
            assert {index: square for index, (square, _) in found.items()} == {
                n: n * n for n in range(30)
            }
            assert {pid for _, pid in found.values()} <= {p.pid for p in _children()}
        assert list(workers.map(work, [], name)) == []
    assert _children() == []


def process_of(task: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def test_a_worker_gets_the_tasks_it_had_before() -> None:
    with Workers(2) as workers:
        had = dict(workers.map(process_of, [0, 1], str))
        has = {1 - index: process for index, process in workers.map(process_of, [1, 0], str)}
    assert len(set(had.values())) == 2
    assert has == had


def test_a_worker_with_no_task_of_its_own_takes_those_of_others() -> None:
    with Workers(2) as workers:
        had = {process for task in range(6) for _, process in workers.map(process_of, [task], str)}
        assert len(had) == 1
        assert len({process for _, process in workers.map(process_of, range(6), str)}) == 2


@pytest.mark.kills
@pytest.mark.parametrize(("task", "said"), [(-1, "signal 9.*fewer --workers"), (-2, "exit code 3")])
def test_a_death_names_the_task(task: int, said: str) -> None:
    with pytest.raises(BratsError, match=rf"case\\n{task}: .*{said}"), Workers(2) as workers:
        list(workers.map(work, [1, 2, task, 4], name))
    assert _children() == []


def test_memory_that_runs_out_names_the_task() -> None:
    said = r"case\\n-5: .*memory.*fewer --workers"
    with pytest.raises(BratsError, match=said), Workers(1) as pool:
        list(pool.map(work, [-5], name))


def test_an_error_comes_back_as_it_was_raised() -> None:
    with pytest.raises(DataFaults) as refusal, Workers(1) as workers:
        list(workers.map(work, [-3], name))
    assert refusal.value.faults[0].case == "x"
    with pytest.raises(RuntimeError, match="Unpicklable"), Workers(1) as workers:
        list(workers.map(work, [-4], name))


def test_leaving_early_waits_for_nobody() -> None:
    with pytest.raises(KeyError):
        _leave_at_the_first_result()
    assert _children() == []


def _leave_at_the_first_result() -> None:
    with Workers(2) as workers:
        for _ in workers.map(work, range(100), name):
            raise KeyError


def _children() -> list[multiprocessing.process.BaseProcess]:
    return multiprocessing.active_children()
