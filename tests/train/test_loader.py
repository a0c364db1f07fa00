"""The data path: which rows, in which order, to which rank, and that they arrive as they lie."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.errors import BratsError
from brats_cache.labels import region_table
from brats_cache.store import Cache
from brats_train.distributed import World
from brats_train.loader import (
    Batches,
    RowSet,
    case_splits,
    epoch_order,
    gather_rows,
    region_targets,
    rows_by_rule,
    select_rows,
)

CPU = torch.device("cpu")


def alone(rank: int = 0, size: int = 1) -> World:
    return World(rank=rank, size=size, device=CPU)


def collect(batches: Batches, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """All images and masks of an epoch, in order."""
    got = [(batch.images, batch.masks) for batch in batches.epoch(epoch)]
    return torch.cat([i for i, _ in got]).numpy(), torch.cat([m for _, m in got]).numpy()


def test_rows_arrive_as_they_lie_in_the_cache(cache: Cache) -> None:
    rows = select_rows([cache], "train", "all")
    batches = Batches([cache], rows, batch_size=7, seed=5, world=alone())
    images, masks = collect(batches, epoch=2)
    order = rows.row[epoch_order(len(rows), 5, 2)]
    np.testing.assert_array_equal(images, cache.images[order].astype(np.float32))
    np.testing.assert_array_equal(masks, cache.masks[order])
    assert batches.num_samples == len(rows)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_every_global_batch(cache: Cache, size: int) -> None:
    rows = select_rows([cache], "train", "all")
    whole = Batches([cache], rows, batch_size=10, seed=1, world=alone())
    parts = [
        Batches([cache], rows, batch_size=10, seed=1, world=alone(rank, size))
        for rank in range(size)
    ]
    assert {part.num_steps for part in parts} == {whole.num_steps}
    for together, *divided in zip(
        whole.epoch(4), *(part.epoch(4) for part in parts), strict=True
    ):
        joined = torch.cat([batch.images for batch in divided])
        torch.testing.assert_close(joined, together.images, rtol=0, atol=0)
        assert [batch.part for batch in divided][-1].stop == together.global_size


def test_a_last_batch_smaller_than_the_world_is_left_out(cache: Cache) -> None:
    rows = select_rows([cache], "train", "all")[np.arange(7)]
    batches = Batches([cache], rows, batch_size=3, seed=0, world=alone(1, 2))
    assert batches.num_steps == 2
    assert batches.num_samples == 6
    with pytest.raises(BratsError, match="1 training rows for 2 processes"):
        Batches([cache], rows[np.arange(1)], batch_size=3, seed=0, world=alone(0, 2))


def test_several_caches_read_as_one(cache: Cache) -> None:
    rows = RowSet(cache=np.array([1, 0, 1, 0]), row=np.array([3, 3, 0, 9]))
    images, masks = gather_rows([cache, cache], rows, CPU)
    np.testing.assert_array_equal(images.numpy(), cache.images[rows.row].astype(np.float32))
    np.testing.assert_array_equal(masks.numpy(), cache.masks[rows.row])


@given(st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 500))
def test_an_epoch_is_a_permutation_of_its_own(num_rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(num_rows, seed, epoch)
    assert sorted(order) == list(range(num_rows))
    np.testing.assert_array_equal(order, epoch_order(num_rows, seed, epoch))
    if num_rows > 20:
        assert (order != epoch_order(num_rows, seed, epoch + 1)).any()
        assert (order != epoch_order(num_rows, seed + 1, epoch)).any()


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


def test_a_failure_of_the_gathering_thread_reaches_the_caller(cache: Cache) -> None:
    vanished = replace(cache, path=cache.path.with_name("vanished.h5"))
    rows = RowSet(cache=np.zeros(4, int), row=np.arange(4))
    batches = Batches([vanished], rows, batch_size=2, seed=0, world=alone())
    with pytest.raises(FileNotFoundError):
        list(batches.epoch(0))


def test_leaving_an_epoch_early_leaves_no_thread(cache: Cache) -> None:
    rows = select_rows([cache], "train", "all")
    batches = Batches([cache], rows, batch_size=4, seed=0, world=alone())
    for _ in batches.epoch(0):
        break
    assert not [thread for thread in threading.enumerate() if thread.name == "gather"]
    assert len(collect(batches, 1)[0]) == len(rows)
