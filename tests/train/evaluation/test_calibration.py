"""Calibration and threshold sweeps against the same figures computed straight from the voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from brats_train.evaluation.calibration import (
    best_threshold,
    brier_score,
    calibration_error,
    dice_by_threshold,
    probability_table,
    reliability,
    thresholds,
)

seeds = st.integers(0, 2**31)


def voxels(
    seed: int, num_voxels: int = 400, dtype: type = np.float32
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Probabilities with exact zeros, ones and bin edges among them, and a truth that follows."""
    generator = np.random.default_rng(seed)
    probabilities = generator.random(num_voxels)
    edges = generator.integers(0, 129, num_voxels) / 128
    probabilities = np.where(generator.random(num_voxels) < 0.3, edges, probabilities).astype(dtype)
    return probabilities, generator.random(num_voxels) < probabilities


@settings(max_examples=50, deadline=None)
@given(seed=seeds, dtype=st.sampled_from([np.float16, np.float32, np.float64]))
def test_dice_is_exactly_that_of_thresholding(seed: int, dtype: type) -> None:
    probabilities, truth = voxels(seed, dtype=dtype)
    found = dice_by_threshold(probability_table(probabilities, truth))
    for threshold, dice in zip(thresholds(), found, strict=True):
        predicted = probabilities >= threshold
        both = predicted.sum() + truth.sum()
        assert dice == (2 * (predicted & truth).sum() / both if both else 1)


@settings(max_examples=50, deadline=None)
@given(seed=seeds)
def test_brier_and_calibration_equal_the_direct_figures(seed: int) -> None:
    probabilities, truth = voxels(seed)
    exact = probabilities.astype(np.float64)
    table = probability_table(probabilities, truth)
    assert brier_score(table) == pytest.approx(np.mean((exact - truth) ** 2), abs=1e-6)
    bins = np.minimum((exact * 16).astype(int), 15)
    gaps = [
        abs(exact[bins == b].mean() - truth[bins == b].mean()) * (bins == b).sum()
        for b in np.unique(bins)
    ]
    assert calibration_error(table) == pytest.approx(sum(gaps) / len(exact), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, cuts=st.lists(st.integers(0, 400), max_size=5))
def test_tables_of_parts_add_up_to_the_table_of_the_whole(seed: int, cuts: list[int]) -> None:
    probabilities, truth = voxels(seed)
    parts = [
        probability_table(p, t)
        for p, t in zip(
            np.split(probabilities, sorted(cuts)), np.split(truth, sorted(cuts)), strict=True
        )
    ]
    np.testing.assert_array_equal(
        np.sum(parts[::-1], axis=0), probability_table(probabilities, truth)
    )


def test_a_volume_of_many_chunks_is_counted_whole() -> None:
    probabilities, truth = voxels(5, num_voxels=100_003)
    table = probability_table(probabilities, truth)
    assert table[:, 0].sum(axis=1).tolist() == [(~truth).sum(), truth.sum()]
    exact = probabilities.astype(np.float64)
    assert brier_score(table) == pytest.approx(np.mean((exact - truth) ** 2), abs=1e-6)


def test_calibrated_probabilities_have_little_error_and_shifted_ones_their_shift() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.uniform(0, 0.5, 200_000).astype(np.float32)
    truth = generator.random(200_000) < probabilities
    assert calibration_error(probability_table(probabilities, truth)) < 0.01
    shifted = probability_table(probabilities + np.float32(0.25), truth)
    assert calibration_error(shifted) == pytest.approx(0.25, abs=0.01)


def test_certain_and_right_is_perfect_certain_and_wrong_the_worst() -> None:
    truth = np.array([[True, False], [False, False]])
    right, wrong = (probability_table(mask.astype(np.float32), truth) for mask in (truth, ~truth))
    assert (brier_score(right), calibration_error(right)) == (0, 0)
    assert (brier_score(wrong), calibration_error(wrong)) == (1, 1)


def test_an_empty_bin_is_nan_and_weighs_nothing() -> None:
    diagram = reliability(probability_table(np.array([0.1, 0.9]), np.array([False, True])), 4)
    np.testing.assert_array_equal(diagram.voxels, [1, 0, 0, 1])
    np.testing.assert_allclose(diagram.probability, [0.1, math.nan, math.nan, 0.9], atol=1e-7)
    np.testing.assert_array_equal(diagram.frequency, [0, math.nan, math.nan, 1])


def test_no_voxel_has_no_figures() -> None:
    table = probability_table(np.zeros(0, np.float32), np.zeros(0, bool))
    assert math.isnan(brier_score(table))
    assert math.isnan(calibration_error(table))


def test_an_empty_truth_follows_the_rule_for_empty_masks() -> None:
    table = probability_table(np.array([0.0, 0.3]), np.array([False, False]), num_bins=4)
    np.testing.assert_array_equal(dice_by_threshold(table), [0, 1, 1])
    np.testing.assert_array_equal(dice_by_threshold(table, "nan"), [0, math.nan, math.nan])


class TestBestThreshold:
    def test_is_the_peak_of_the_mean_over_cases_in_any_order(self) -> None:
        generator = np.random.default_rng(1)
        cases = {f"case{i}": generator.random(127) for i in range(9)}
        found = best_threshold(cases)
        assert found == best_threshold(dict(reversed(cases.items())))
        means = np.mean(list(cases.values()), axis=0)
        assert found == pytest.approx((thresholds()[means.argmax()], means.max()))

    def test_of_equals_is_the_one_nearest_a_half(self) -> None:
        assert best_threshold({"case": np.ones(127)}) == (0.5, 1)
        assert best_threshold({"case": np.array([0.9, 0.1, 0.9])}) == (0.25, 0.9)

    def test_leaves_out_nan(self) -> None:
        cases = {"a": np.array([math.nan, 0.2, 0.4]), "b": np.array([math.nan, 0.6, math.nan])}
        assert best_threshold(cases) == (0.5, 0.4)

    @pytest.mark.parametrize("cases", [{}, {"case": np.full(3, math.nan)}])
    def test_needs_a_case(self, cases: dict[str, NDArray[np.float64]]) -> None:
        with pytest.raises(ValueError, match="no case"):
            best_threshold(cases)


@pytest.mark.parametrize(
    ("probabilities", "num_bins", "message"),
    [
        ([0.5, 1.5], 128, "outside"),
        ([0.5, -0.1], 128, "outside"),
        ([0.5, math.nan], 128, "outside"),
        ([0.5, 0.5], 100, "power of two"),
        ([0.5], 128, "shape"),
    ],
)
def test_what_cannot_be_counted_is_refused(
    probabilities: list[float], num_bins: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        probability_table(np.array(probabilities), np.array([True, False]), num_bins)


def test_bins_merge_only_evenly() -> None:
    table = probability_table(np.array([0.5]), np.array([True]))
    with pytest.raises(ValueError, match="15"):
        reliability(table, 15)
