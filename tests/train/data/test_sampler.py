"""Which samples an epoch holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import REGIONS
from brats_train.data.sampler import MIN_SAMPLES, NEAR_SLICES, is_near_tumor, make_sampler
from brats_train.data.selection import RowSet, select_rows


@pytest.fixture
def rows(cache: Cache) -> RowSet:
    return select_rows([cache], "train", "all")


def has_tumor(cache: Cache, rows: RowSet) -> np.ndarray:
    return cache.slices[rows.row]["label_pixels"][:, sorted(REGIONS["wt"])].any(axis=1)


def test_uniform_sampling_takes_every_row_once(cache: Cache, rows: RowSet) -> None:
    sampler = make_sampler([cache], rows, seed=1, background=None)
    first, second = sampler.order(0), sampler.order(1)
    assert sampler.num_samples == len(rows)
    assert np.array_equal(np.sort(first), np.arange(len(rows)))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, sampler.order(0))


@pytest.mark.parametrize("background", [0.0, 0.3, 100.0])
def test_every_pass_holds_all_tumour_and_some_other_slices(
    cache: Cache, rows: RowSet, background: float
) -> None:
    is_tumor = has_tumor(cache, rows)
    sampler = make_sampler([cache], rows, seed=1, background=background)
    order = sampler.order(3)
    assert len(order) == sampler.num_samples >= MIN_SAMPLES
    num_others = min(round(background * is_tumor.sum()), (~is_tumor).sum())
    for one in np.split(order, sampler.num_passes):
        assert np.array_equal(np.sort(one[is_tumor[one]]), np.flatnonzero(is_tumor))
        others = one[~is_tumor[one]]
        assert len(np.unique(others)) == len(others) == num_others
    assert np.array_equal(order, sampler.order(3))


@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0, 1, 1 << 32]), st.integers(0, 12), st.booleans()), min_size=1
    )
)
def test_near_is_within_three_slices_of_the_same_case(rows: list[tuple[int, int, bool]]) -> None:
    tumors = [(case, z) for case, z, has_tumor in rows if has_tumor]
    assume(tumors)
    expected = [
        any(case == one and abs(z - at) <= NEAR_SLICES for one, at in tumors) for case, z, _ in rows
    ]
    case, z, has_tumor = (np.array(column) for column in zip(*rows, strict=True))
    assert is_near_tumor(case, z, has_tumor).tolist() == expected


def test_slices_near_a_tumour_are_drawn_more_often(cache: Cache, rows: RowSet) -> None:
    is_tumor = has_tumor(cache, rows)
    case, z = cache.slices[rows.row]["case"], cache.slices[rows.row]["z"].astype(int)
    near = np.array(
        [
            (np.abs(z[is_tumor & (case == one)] - at) <= NEAR_SLICES).any()
            for one, at in zip(case, z, strict=True)
        ]
    )
    sampler = make_sampler([cache], rows, seed=1, background=0.2)
    drawn = np.bincount(sampler.order(0), minlength=len(rows))
    assert drawn[near & ~is_tumor].mean() > 1.5 * drawn[~near & ~is_tumor].mean()


def test_without_any_tumour_sampling_is_uniform(cache: Cache, rows: RowSet) -> None:
    empty = rows[~has_tumor(cache, rows)]
    sampler = make_sampler([cache], empty, seed=1, background=0.5)
    assert sampler.num_samples == len(empty)


def test_cases_of_several_caches_are_told_apart(cache: Cache) -> None:
    rows = select_rows([cache, cache], "train", "all")
    sampler = make_sampler([cache, cache], rows, seed=1, background=0.5)
    alone = make_sampler([cache], select_rows([cache], "train", "all"), seed=1, background=0.5)
    assert len(sampler.always) == 2 * len(alone.always)
    assert np.array_equal(sampler.chances, np.tile(alone.chances, 2))


@pytest.mark.parametrize("background", [None, 0.5])
@pytest.mark.parametrize("weight", [3.0, 0.5, 2.25])
def test_slices_of_a_cache_come_as_often_as_its_weight_says(
    cache: Cache, background: float | None, weight: float
) -> None:
    rows = select_rows([cache, cache], "train", "all")
    sampler = make_sampler([cache, cache], rows, 1, background, (1.0, weight))
    order = np.concatenate([sampler.order(epoch) for epoch in range(20)])
    assert len(order) == 20 * sampler.num_samples
    is_tumor = has_tumor(cache, rows)
    num_taken = np.bincount(rows.cache[order[is_tumor[order]]], minlength=2)
    assert num_taken[1] / num_taken[0] == pytest.approx(weight, rel=0.1)
    times = np.bincount(order, minlength=len(rows))[is_tumor & (rows.cache == 1)]
    num_passes = 20 * sampler.num_passes
    # Every pass holds the whole copies, and what is left over is spread over the slices.
    assert times.min() >= num_passes * np.floor(weight)
    assert times.max() <= num_passes * np.ceil(weight)
