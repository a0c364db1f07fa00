"""Small components against scipy's labelling, and the sweep against dropping for real."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from brats_train.inference.components import component_curves, drop_small, label_components

CANDIDATES = (0, 1, 2, 3, 5, 9, 40)
SHARES = (0.0, 0.05, 0.1, 0.3, 0.5, 1.0)
seeds = st.integers(0, 2**31)
densities = st.sampled_from([0.0, 0.05, 0.1, 0.2, 1.0])


def blobs(seed: int, density: float) -> np.ndarray:
    return np.random.default_rng(seed).random((7, 8, 9)) < density


@settings(max_examples=200)
@given(
    seed=seeds, density=densities, shape=st.tuples(*[st.sampled_from([1, 1, 2, 3, 5, 6, 7])] * 3)
)
def test_masks_of_any_thickness_have_scipys_components(
    seed: int, density: float, shape: tuple[int, int, int]
) -> None:
    mask = np.random.default_rng(seed).random(shape) < density
    mask |= np.indices(shape).sum(axis=0) % 2 == 0 if density == 0.2 else False
    labels, num = label_components(mask)
    expected, expected_num = ndimage.label(mask, np.ones((3, 3, 3)))
    assert num == expected_num
    pairs = set(zip(labels[mask].tolist(), expected[mask].tolist(), strict=True))
    assert len(pairs) == num
    assert not labels[~mask].any()


def test_specks_in_a_row_are_specks() -> None:
    for length in range(1, 12):
        mask = np.zeros((1, 1, length), bool)
        mask[..., ::2] = True
        assert label_components(mask)[1] == mask.sum()
        assert not drop_small(mask, 2).any()


@settings(max_examples=60)
@given(seed=seeds, density=densities, min_voxels=st.sampled_from(CANDIDATES))
def test_exactly_the_components_below_the_size_go(
    seed: int, density: float, min_voxels: int
) -> None:
    mask = blobs(seed, density)
    labels, num = ndimage.label(mask, np.ones((3, 3, 3)))
    kept = [i for i in range(1, num + 1) if (labels == i).sum() >= min_voxels]
    assert np.array_equal(drop_small(mask, min_voxels), np.isin(labels, kept))


@given(seed=seeds, density=densities, share=st.sampled_from(SHARES))
def test_what_is_small_beside_the_largest_goes(seed: int, density: float, share: float) -> None:
    mask = blobs(seed, density)
    labels, num = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    kept = [i + 1 for i in range(num) if sizes[i] >= share * sizes.max()]
    assert np.array_equal(drop_small(mask, 0, share), np.isin(labels, kept))


@settings(max_examples=40)
@given(seed=seeds, density=densities, true_density=densities)
def test_the_sweep_gives_the_dice_of_dropping(
    seed: int, density: float, true_density: float
) -> None:
    mask, truth = blobs(seed, density), blobs(seed + 1, true_density)
    expected, voxels = [], []
    for candidate in SHARES:
        kept = drop_small(mask, 0, candidate)
        voxels.append(kept.sum())
        both = kept.sum() + truth.sum()
        expected.append(2 * (kept & truth).sum() / both if both else 1.0)
    dice, left = component_curves(mask, truth, SHARES)
    assert np.array_equal(dice, expected)
    assert np.array_equal(left, voxels)


def test_dropping_leaves_its_argument_alone() -> None:
    mask = blobs(1, 0.1)
    before = mask.copy()
    drop_small(mask, 5)
    assert np.array_equal(mask, before)
