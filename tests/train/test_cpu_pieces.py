"""Pieces of a batch, each in a thread of its own."""

from __future__ import annotations

import multiprocessing
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brats_train.cpu_pieces import run_in_pieces


@given(st.integers(0, 40), st.integers(1, 9))
def test_every_sample_is_in_one_piece(num_samples: int, piece: int) -> None:
    times = torch.zeros(num_samples, dtype=torch.int64)

    def touch(part: slice) -> None:
        assert 0 < part.stop - part.start <= piece
        times[part] += 1

    run_in_pieces(touch, num_samples, piece)
    assert (times == 1).all()


def test_each_piece_has_a_core_and_others_keep_theirs() -> None:
    before = torch.get_num_threads()
    seen: list[tuple[int, bool]] = []
    run_in_pieces(
        lambda part: seen.append((torch.get_num_threads(), torch.is_grad_enabled())), 20, 2
    )
    assert set(seen) == {(1, False)}
    assert torch.get_num_threads() == before
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [before]


def test_a_failure_reaches_the_caller() -> None:
    def fail(part: slice) -> None:
        raise ValueError(f"at {part.start}")

    with pytest.raises(ValueError, match="at 0"):
        run_in_pieces(fail, 6, 2)


def _count(queue: multiprocessing.Queue[int]) -> None:
    total = torch.zeros(8)

    def touch(part: slice) -> None:
        total[part] += 1

    run_in_pieces(touch, 8, 2)
    queue.put(int(total.sum()))


def test_a_forked_process_starts_threads_of_its_own() -> None:
    run_in_pieces(lambda part: None, 8, 2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_count, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == 8
    child.join()
