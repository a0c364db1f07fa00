"""Post-processing: region masks and labels, there and back."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.imaging.labels import SCHEMES, canonical_table, region_table
from brats_train.inference.postprocess import label_volume, regions_of, source_labels
from brats_train.models.postprocessing import Postprocessing, RegionRule

REGIONS = ("wt", "tc", "et")


def labels(seed: int, values: tuple[int, ...] = (0, 1, 2, 3)) -> np.ndarray:
    return np.random.default_rng(seed).choice(values, size=(7, 6, 5)).astype(np.uint8)


def all_alike(threshold: float, min_component_voxels: int) -> Postprocessing:
    rule = RegionRule(threshold=threshold, min_component_voxels=min_component_voxels)
    return Postprocessing(rules=dict.fromkeys(REGIONS, rule))


def test_a_small_enhancing_tumour_becomes_core() -> None:
    probabilities = np.zeros((1, 3, 4, 4), np.float32)
    probabilities[0, 0, :3], probabilities[0, 1, :2], probabilities[0, 2, :1] = 1, 1, 1
    for min_voxels, is_kept in ((4, True), (5, False)):
        rules = Postprocessing(rules={"et": RegionRule(min_voxels=min_voxels)})
        wt, tc, et = regions_of(probabilities, REGIONS, np.array([0]), 1, rules)
        assert (wt.sum(), tc.sum(), et.sum()) == (12, 8, 4 if is_kept else 0)


def test_what_is_dropped_of_the_tumour_is_dropped_of_its_core() -> None:
    probabilities = np.zeros((1, 3, 6, 6), np.float32)
    probabilities[0, 0, :3, :3] = 1  # the tumour
    probabilities[0, :, 5, 5] = 1  # a speck that is called tumour, core and enhancing
    rules = Postprocessing(rules={"wt": RegionRule(min_component_share=0.5)})
    wt, tc, et = regions_of(probabilities, REGIONS, np.array([0]), 1, rules)
    assert (wt.sum(), tc.sum(), et.sum()) == (9, 0, 0)


def test_each_region_has_its_own_threshold() -> None:
    probabilities = np.full((1, 2, 2, 2), 0.5, np.float32)
    rules = {"wt": RegionRule(threshold=0.4), "tc": RegionRule(threshold=0.6)}
    masks = regions_of(probabilities, REGIONS[:2], np.array([0]), 1, Postprocessing(rules=rules))
    assert masks[0].all()
    assert not masks[1].any()


def test_slices_without_a_row_are_background_and_specks_go() -> None:
    probabilities = np.zeros((2, 1, 6, 6), np.float32)
    probabilities[0, 0, :3, :3], probabilities[1, 0, 5, 5] = 0.5, 0.9
    masks = regions_of(probabilities, ("wt",), np.array([1, 4]), 6, all_alike(0.5, 2))
    assert masks.shape == (1, 6, 6, 6)
    assert np.flatnonzero(masks.any(axis=(0, 2, 3))).tolist() == [1]
    assert masks[0, 1, :3, :3].all()


def test_a_probability_of_zero_is_background_whatever_the_threshold() -> None:
    probabilities = np.array([[[[0.0, 0.1], [0.0, 0.9]]]], np.float32)
    masks = regions_of(probabilities, ("wt",), np.array([0]), 1, all_alike(0.0, 0))
    assert masks[0, 0].tolist() == [[False, True], [False, True]]


@given(seed=st.integers(0, 2**31))
def test_what_is_scored_is_what_is_written(seed: int) -> None:
    probabilities = np.random.default_rng(seed).random((4, 3, 5, 6), np.float32)
    masks = regions_of(probabilities, REGIONS, np.arange(4), 4, all_alike(0.5, 3))
    written = label_volume(masks, REGIONS)
    for channel, region in enumerate(REGIONS):
        assert np.array_equal(region_table(region)[written], masks[channel])


@given(seed=st.integers(0, 2**31), scheme=st.sampled_from(["brats2013", "brats2017", "brats2023"]))
def test_nested_regions_come_back_from_their_labels(seed: int, scheme: str) -> None:
    truth = labels(seed)
    masks = np.stack([region_table(region)[truth] for region in REGIONS])
    written = source_labels(masks, REGIONS, SCHEMES[scheme])
    assert set(np.unique(written)) <= SCHEMES[scheme].values
    assert np.array_equal(canonical_table(SCHEMES[scheme])[written], truth)
    assert np.array_equal(label_volume(masks, REGIONS), truth)


def test_the_whole_tumour_alone_is_written_as_one() -> None:
    masks = labels(0)[None] > 0
    for scheme in SCHEMES.values():
        assert np.array_equal(source_labels(masks, ("wt",), scheme), masks[0])
