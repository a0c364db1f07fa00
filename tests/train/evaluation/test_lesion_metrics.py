"""Lesion-wise scores against planted lesions and a plain restatement of the BraTS 2023 rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from brats_train.evaluation.lesion_metrics import LesionRule, LesionScores, score_lesions
from brats_train.evaluation.surface_distance import hausdorff_distance, surface_distances

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

SHAPE = (24, 28, 32)
CORNERS = ndimage.generate_binary_structure(3, 3)
EDGES = ndimage.generate_binary_structure(3, 2)


def cubes(*corners: tuple[int, int, int], size: int = 4, shape: tuple[int, ...] = SHAPE) -> Mask:
    mask = np.zeros(shape, bool)
    for z, y, x in corners:
        mask[z : z + size, y : y + size, x : x + size] = True
    return mask


def restated(prediction: Mask, truth: Mask, spacing: Spacing, rule: LesionRule) -> LesionScores:
    """The rule lesion by lesion on whole volumes, every lesion dilated by itself."""

    def grown(mask: Mask) -> Mask:
        for _ in range(rule.num_dilations):
            mask = ndimage.binary_dilation(mask, EDGES)
        return mask

    extents, num_lesions = ndimage.label(grown(truth), CORNERS)
    parts, num_parts = ndimage.label(prediction, CORNERS)
    dice, hd95, num_missed, met = [], [], 0, set()
    for number in range(1, num_lesions + 1):
        lesion = truth & (extents == number)
        touching = set(np.unique(parts[grown(lesion)])) - {0}
        met |= touching
        if lesion.sum() * math.prod(spacing) <= rule.ignored_volume_mm3:
            continue
        found = np.isin(parts, list(touching))
        num_missed += not touching
        dice.append(2 * (found & lesion).sum() / (found.sum() + lesion.sum()))
        hd95.append(
            hausdorff_distance(surface_distances(found, lesion, spacing)) if touching else 374.0
        )
    num_false = num_parts - len(met)
    scored = len(dice) + num_false
    return LesionScores(
        num_true=len(dice),
        num_missed=num_missed,
        num_false=num_false,
        dice=sum(dice) / scored if scored else math.nan,
        hd95=(sum(hd95) + 374 * num_false) / scored if scored else math.nan,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_blobs=st.integers(0, 8),
    rule=st.sampled_from([LesionRule(), LesionRule(num_dilations=1, ignored_volume_mm3=2)]),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (3.0, 1.0, 0.8)]),
)
def test_equals_the_rule_restated(
    seed: int, num_blobs: int, rule: LesionRule, spacing: Spacing
) -> None:
    generator = np.random.default_rng(seed)
    masks = (cubes(), cubes())
    for _ in range(num_blobs):
        size = generator.integers(1, 7, 3)
        first = generator.integers(-2, np.array(SHAPE))
        for mask in masks:
            if generator.random() < 0.7:
                start = np.maximum(first + generator.integers(-2, 3, 3), 0)
                mask[tuple(map(slice, start, start + size))] ^= True
    found = score_lesions(*masks, spacing, rule)
    expected = restated(*masks, spacing, rule)
    assert (found.num_true, found.num_missed, found.num_false) == (
        expected.num_true,
        expected.num_missed,
        expected.num_false,
    )
    assert (found.dice, found.hd95) == pytest.approx((expected.dice, expected.hd95), nan_ok=True)


def test_one_of_two_lesions_missed_is_half_a_score() -> None:
    truth = cubes((2, 2, 2), (16, 20, 24))
    found = score_lesions(cubes((2, 2, 2)), truth, (1, 1, 1))
    assert found == LesionScores(num_true=2, num_missed=1, num_false=0, dice=0.5, hd95=187.0)


def test_every_invented_component_costs_a_lesion_however_small() -> None:
    truth = cubes((2, 2, 2))
    prediction = truth | cubes((16, 20, 24), (16, 4, 24), size=1)
    found = score_lesions(prediction, truth, (1, 1, 1))
    assert (found.num_true, found.num_missed, found.num_false) == (1, 0, 2)
    assert (found.dice, found.hd95) == pytest.approx((1 / 3, 2 * 374 / 3))


@pytest.mark.parametrize(("gap", "num_lesions"), [(1, 1), (6, 1), (7, 2), (10, 2)])
def test_parts_that_meet_when_dilated_are_one_lesion(gap: int, num_lesions: int) -> None:
    truth = cubes((4, 4, 2), (4, 4, 6 + gap))
    assert score_lesions(truth, truth, (1, 1, 1)).num_true == num_lesions
    alone = score_lesions(cubes((4, 4, 2)), truth, (1, 1, 1))
    assert alone.num_missed == num_lesions - 1


@pytest.mark.parametrize(("distance", "is_false"), [(3, False), (4, True)])
def test_a_component_near_a_lesion_belongs_to_it(distance: int, is_false: bool) -> None:
    truth = cubes((4, 4, 4))
    prediction = truth.copy()
    prediction[4, 4, 7 + distance] = True
    found = score_lesions(prediction, truth, (1, 1, 1))
    assert found.num_false == is_false
    assert found.dice == pytest.approx(0.5 if is_false else 2 * 64 / (64 + 65))


def test_voxels_that_share_only_a_corner_are_one_component() -> None:
    diagonal = cubes((16, 20, 24), (17, 21, 25), size=1)
    found = score_lesions(diagonal, cubes((2, 2, 2)), (1, 1, 1))
    assert found.num_false == 1


def test_small_lesions_are_left_out_by_volume_and_excuse_what_touches_them() -> None:
    small, large = cubes((2, 2, 2), size=3), cubes((14, 18, 20))
    truth = small | large
    for prediction in (large, truth):
        found = score_lesions(prediction, truth, (1, 1, 1))
        assert found == LesionScores(num_true=1, num_missed=0, num_false=0, dice=1.0, hd95=0.0)
    assert score_lesions(large, truth, (2, 1, 1)).num_missed == 1
    # 5 x 5 x 2 voxels of 1 mm^3 are the 50 that are still ignored.
    at_the_limit = np.zeros(SHAPE, bool)
    at_the_limit[:5, :5, :2] = True
    assert score_lesions(at_the_limit, at_the_limit, (1, 1, 1)).num_true == 0
    at_the_limit[5, 0, 0] = True
    assert score_lesions(at_the_limit, at_the_limit, (1, 1, 1)).num_true == 1


def test_one_component_over_two_lesions_is_scored_with_both() -> None:
    truth = cubes((4, 4, 2), (4, 4, 20))
    bridge = np.zeros(SHAPE, bool)
    bridge[4:8, 4:8, 2:24] = True
    found = score_lesions(bridge, truth, (1, 1, 1))
    assert (found.num_true, found.num_missed, found.num_false) == (2, 0, 0)
    assert found.dice == pytest.approx(2 * 64 / (64 + bridge.sum()))


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (cubes(), cubes(), (0, 0, 0)),
        (cubes((2, 2, 2)), cubes(), (0, 0, 1)),
        (cubes(), cubes((2, 2, 2)), (1, 1, 0)),
        (np.ones(SHAPE, bool), np.ones(SHAPE, bool), (1, 0, 0)),
        (np.ones((1, 1, 1), bool), np.zeros((1, 1, 1), bool), (0, 0, 1)),
    ],
    ids=["both empty", "truth empty", "prediction empty", "both full", "one voxel"],
)
def test_counts_at_the_edges(prediction: Mask, truth: Mask, expected: tuple[int, int, int]) -> None:
    found = score_lesions(prediction, truth, (1, 1, 1))
    assert (found.num_true, found.num_missed, found.num_false) == expected
    assert math.isnan(found.dice) == math.isnan(found.hd95) == (expected == (0, 0, 0))
