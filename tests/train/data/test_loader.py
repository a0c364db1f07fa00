"""The data path: which rows, in which order, to which rank, and that they arrive as they lie."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.common.errors import BratsError, CacheCorruptError
from brats_cache.format.reader import Cache, open_cache
from brats_cache.imaging.labels import region_table
from brats_train.data.feeders import make_feeder, resident_bytes
from brats_train.data.loader import Batches
from brats_train.data.mmap_gather import CopyThreadPool, MappedRows
from brats_train.data.sampler import Sampler
from brats_train.data.selection import RowSet, case_splits, rows_by_rule, select_rows
from brats_train.data.targets import region_targets
from brats_train.runtime.distributed import World

CPU = torch.device("cpu")
RESIDENT = pytest.mark.parametrize("resident", ["never", "always"])


def alone(rank: int = 0, size: int = 1) -> World:
    return World(rank=rank, size=size, device=CPU)


def batches_of(
    cache: Cache,
    rows: RowSet,
    *,
    batch_size: int,
    seed: int = 0,
    world: World | None = None,
    resident: str = "never",
) -> Batches:
    feeder = make_feeder([cache], rows, largest=batch_size, device=CPU, resident=resident)
    return Batches(
        feeder,
        Sampler.uniform(len(rows), seed=seed),
        batch_size=batch_size,
        world=world or alone(),
    )


def collect(batches: Batches, epoch: int, first_step: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """All images and masks of an epoch, in order."""
    got = [(b.images.clone(), b.masks.clone()) for b in batches.epoch(epoch, first_step)]
    return torch.cat([i for i, _ in got]).numpy(), torch.cat([m for _, m in got]).numpy()


@RESIDENT
def test_rows_arrive_as_they_lie_in_the_cache(cache: Cache, resident: str) -> None:
    rows = select_rows([cache], "train", "all")
    batches = batches_of(cache, rows, batch_size=7, seed=5, resident=resident)
    images, masks = collect(batches, epoch=2)
    order = rows.row[Sampler.uniform(len(rows), seed=5).order(2)]
    np.testing.assert_array_equal(images, cache.images[order])
    np.testing.assert_array_equal(masks, cache.masks[order])
    assert images.dtype == np.float16
    assert masks.dtype == np.uint8
    assert batches.num_samples_in(batches.num_steps) == len(rows)


@RESIDENT
def test_an_epoch_can_be_taken_up_at_any_step(cache: Cache, resident: str) -> None:
    rows = select_rows([cache], "train", "all")
    batches = batches_of(cache, rows, batch_size=20, resident=resident)
    whole, _ = collect(batches, epoch=1)
    for first_step in range(batches.num_steps):
        rest, _ = collect(batches, epoch=1, first_step=first_step)
        np.testing.assert_array_equal(rest, whole[20 * first_step :])


@RESIDENT
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_every_global_batch(cache: Cache, size: int, resident: str) -> None:
    rows = select_rows([cache], "train", "all")
    whole = batches_of(cache, rows, batch_size=10, seed=1)
    parts = [
        batches_of(cache, rows, batch_size=10, seed=1, world=alone(rank, size), resident=resident)
        for rank in range(size)
    ]
    assert {part.num_steps for part in parts} == {whole.num_steps}
    for together, *divided in zip(whole.epoch(4), *(part.epoch(4) for part in parts), strict=True):
        process_group = torch.cat([batch.images for batch in divided])
        torch.testing.assert_close(process_group, together.images, rtol=0, atol=0)
        assert divided[-1].part.stop == together.global_size


def test_a_last_batch_smaller_than_the_world_is_shared_out(cache: Cache) -> None:
    """Every sample counts once, and every rank takes part in every step."""
    rows = select_rows([cache], "train", "all")[np.arange(7)]
    weights = []
    for rank in range(2):
        batches = batches_of(cache, rows, batch_size=3, world=alone(rank, 2))
        assert batches.num_steps == 3
        assert batches.num_samples_in(3) == 7
        for batch in batches.epoch(0):
            assert len(batch.images) == len(batches.indices(0, batch.step))
            weights.append(batch.weight * len(batch.images))
    assert sum(weights) == 7
    assert 0 in weights
    with pytest.raises(BratsError, match="1 training rows for 2 processes"):
        batches_of(cache, rows[np.arange(1)], batch_size=3, world=alone(0, 2))


@RESIDENT
def test_several_caches_read_as_one(cache: Cache, resident: str) -> None:
    for numbers in ([1, 0, 1, 0, 1], [1, 1, 1, 1, 0]):
        rows = RowSet(cache=np.array(numbers), row=np.array([3, 3, 0, 9, 7]))
        feeder = make_feeder([cache, cache], rows, largest=4, device=CPU, resident=resident)
        chunks = [np.array([4, 0]), np.array([1]), np.array([3, 2, 1, 0])]
        for chunk, (images, masks) in zip(chunks, feeder.feed(chunks), strict=True):
            expected = cache.images[rows.row[chunk]].astype(np.float32)
            np.testing.assert_array_equal(images.numpy(), expected)
            np.testing.assert_array_equal(masks.numpy(), cache.masks[rows.row[chunk]])


def test_a_batch_stays_as_it_is_until_the_next_is_asked_for(cache: Cache) -> None:
    """The thread fills the other buffers of the ring meanwhile, and not this one."""
    rows = select_rows([cache], "train", "all")
    batches = batches_of(cache, rows, batch_size=3)
    for step, batch in enumerate(batches.epoch(0)):
        time.sleep(0.01)
        expected = cache.images[rows.row[batches.indices(0, step)]].astype(np.float32)
        np.testing.assert_array_equal(batch.images.numpy(), expected)


@given(st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 500))
def test_an_epoch_is_a_permutation_of_its_own(num_rows: int, seed: int, epoch: int) -> None:
    order = Sampler.uniform(num_rows, seed=seed).order(epoch)
    assert sorted(order) == list(range(num_rows))
    np.testing.assert_array_equal(order, Sampler.uniform(num_rows, seed=seed).order(epoch))
    if num_rows > 20:
        assert (order != Sampler.uniform(num_rows, seed=seed).order(epoch + 1)).any()
        assert (order != Sampler.uniform(num_rows, seed=seed + 1).order(epoch)).any()


def test_rules_choose_rows(cache: Cache) -> None:
    middle = select_rows([cache], "train", "middle")
    assert (cache.slices["z"][middle.row] == 12).all()
    assert len(middle) == (case_splits(cache, None) == "train").sum()
    tumor = select_rows([cache], "train", "tumor")
    with_tumor = np.isin(cache.masks[:, 0], (1, 2, 3)).any(axis=(1, 2))
    every = select_rows([cache], "train", "all").row
    # Nearest neighbour at the native size keeps every pixel, so the table and the rows agree.
    np.testing.assert_array_equal(tumor.row, every[with_tumor[every]])
    np.testing.assert_array_equal(rows_by_rule(cache, 0, "all"), np.arange(cache.cases["rows"][0]))


def test_a_fold_validates_and_the_others_train(cache: Cache) -> None:
    folds = cache.cases["fold"]
    splits = case_splits(cache, 1)
    assert set(splits[folds == 1]) == {"val"}
    assert set(splits[(folds != 1) & (folds >= 0)]) == {"train"}
    assert set(splits[folds < 0]) == {"test"}
    with pytest.raises(BratsError, match=r"has 3 folds"):
        case_splits(cache, 3)


def test_targets_are_the_regions() -> None:
    masks = torch.arange(6, dtype=torch.uint8).reshape(1, 1, 2, 3)
    targets = region_targets(masks, ("wt", "tc", "et"))
    for channel, region in enumerate(("wt", "tc", "et")):
        expected = region_table(region)[masks[0, 0].numpy()]
        np.testing.assert_array_equal(targets[0, channel].numpy(), expected)


@pytest.mark.parametrize(("spare", "expected"), [(1, "ResidentFeeder"), (-2, "RingFeeder")])
def test_rows_stay_on_the_device_where_a_step_leaves_twice_their_size(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, spare: int, expected: str
) -> None:
    rows = select_rows([cache], "train", "all")
    num_bytes = resident_bytes([cache], rows, 0)
    assert num_bytes == sum(cache.images[row].nbytes + cache.masks[row].nbytes for row in rows.row)
    step_bytes = 1000
    free = step_bytes + 2 * (num_bytes + spare)
    monkeypatch.setattr("brats_train.data.feeders.free_memory", lambda device: free)
    feeder = make_feeder([cache], rows, largest=4, device=CPU, step_bytes=step_bytes)
    assert type(feeder).__name__ == expected


def test_prefetching_reads_exactly_the_rows(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def advise(file: int, start: int, length: int, advice: int) -> None:
        assert os.fstat(file).st_ino == cache.path.stat().st_ino
        asked.append((start, length, advice))

    rows = select_rows([cache], "train", "all")
    source = MappedRows([cache], rows, context=1)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    source.prefetch(np.array([1]))
    whole = cache.path.read_bytes()
    found = [np.frombuffer(whole[start : start + length], "u1") for start, length, _ in asked]
    row = int(rows.row[1])
    for pixels, one in zip(found, (row - 1, row, row + 1), strict=False):
        np.testing.assert_array_equal(pixels, cache.images[one].reshape(-1).view("u1"))
    np.testing.assert_array_equal(found[-1], cache.masks[row].reshape(-1))
    assert [advice for *_, advice in asked] == [os.POSIX_FADV_WILLNEED] * 4


@pytest.mark.parametrize("where", ["start_copying", "_copy"])
def test_a_failure_of_a_thread_reaches_the_caller(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk has gone")

    batches = batches_of(cache, select_rows([cache], "train", "all"), batch_size=2)
    monkeypatch.setattr(f"brats_train.data.mmap_gather.MappedRows.{where}", fail)
    with pytest.raises(OSError, match="the disk has gone"):
        list(batches.epoch(0))


def test_a_cache_that_has_vanished_is_a_fault_at_once(cache: Cache) -> None:
    vanished = replace(cache, path=cache.path.with_name("vanished.h5"))
    with pytest.raises(FileNotFoundError):
        batches_of(vanished, select_rows([cache], "train", "all"), batch_size=2)


def test_leaving_an_epoch_early_leaves_no_thread(cache: Cache) -> None:
    rows = select_rows([cache], "train", "all")
    batches = batches_of(cache, rows, batch_size=4)
    for _ in batches.epoch(0):
        break
    assert not [thread for thread in threading.enumerate() if thread.name == "gather"]
    assert len(collect(batches, 1)[0]) == len(rows)


def test_a_cache_that_is_cut_short_while_it_is_in_use_is_one_message(
    cache: Cache, tmp_path: Path
) -> None:
    """Reading on would end the process by SIGBUS."""
    path = tmp_path / "cut.h5"
    shutil.copyfile(cache.path, path)
    opened = open_cache(path)
    rows = select_rows([opened], "train", "all")
    source = MappedRows([opened], rows)
    images = np.empty((2, *source.shape), np.float16)
    masks = np.empty((2, 1, *source.shape[1:]), np.uint8)
    with CopyThreadPool() as pool:
        for copy in source.start_copying(np.array([0, 1]), images, masks, pool):
            copy.result()
        os.truncate(path, path.stat().st_size // 2)
        with pytest.raises(CacheCorruptError, match=r"cut\.h5.*cut short"):
            source.start_copying(np.array([0, 1]), images, masks, pool)
    with pytest.raises(CacheCorruptError, match="cut short"):
        _ = opened.masks
