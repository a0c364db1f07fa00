"""HD95 and normalised surface Dice against MONAI's marching-cubes surfaces, scipy and geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from brats_train.evaluation.metrics import score_region
from brats_train.evaluation.surface_distance import (
    SurfaceDistances,
    hausdorff_distance,
    surface_dice,
    surface_distances,
)

# MONAI warns of its own use of a deprecated argument.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

SPACINGS: list[Spacing] = [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.0, 2.5, 0.7)]
shapes = st.tuples(*[st.integers(1, 7)] * 3)
mask_pairs = shapes.flatmap(
    lambda shape: st.tuples(*[arrays(bool, shape).filter(lambda mask: bool(mask.any()))] * 2)
)

# 0.94999 of the first one's area lies within 2 mm of the other.
NEARLY_A_TIE = (
    np.array([[[0, 1, 1, 0, 1], [1, 0, 1, 1, 1]]], bool),
    np.array([[[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]], bool),
)


def monai_scores(
    prediction: Mask, truth: Mask, spacing: Spacing, level: float = 0.95 - 1e-5
) -> tuple[float, float]:
    """(HD95, surface Dice at 1 mm) from MONAI's edges, areas and distances.

    `level` is the share of the area that lies within the first.
    """
    torch = pytest.importorskip("torch")
    utils = pytest.importorskip("monai.metrics.utils")
    edges, distances, areas = utils.get_edge_surface_distance(
        torch.from_numpy(prediction),
        torch.from_numpy(truth),
        spacing=spacing,
        use_subvoxels=True,
        symmetric=True,
    )
    pairs = [
        (np.asarray(distance, float), np.asarray(area[edge], float))
        for edge, distance, area in zip(edges, distances, areas, strict=True)
    ]
    directed = []
    for distance, area in pairs:
        levels = np.unique(distance)
        share = np.array([area[distance <= level].sum() for level in levels]) / area.sum()
        directed.append(levels[np.argmax(share >= level)])
    within = sum(area[distance <= 1 + 1e-5].sum() for distance, area in pairs)
    return max(directed), within / sum(area.sum() for _, area in pairs)


def scores(prediction: Mask, truth: Mask, spacing: Spacing = (1, 1, 1)) -> tuple[float, float]:
    distances = surface_distances(prediction, truth, spacing)
    return hausdorff_distance(distances), surface_dice(distances)


def block(shape: tuple[int, int, int], *where: slice) -> Mask:
    mask = np.zeros(shape, bool)
    mask[where] = True
    return mask


class TestAgainstOthers:
    @settings(max_examples=150, deadline=None)
    @given(masks=mask_pairs, spacing=st.sampled_from(SPACINGS))
    @example(masks=NEARLY_A_TIE, spacing=(1.0, 1.0, 1.0))
    def test_equals_monai_on_any_masks(self, masks: tuple[Mask, Mask], spacing: Spacing) -> None:
        # Where a share of the area is 0.95 but for MONAI's rounding, either distance is right.
        expected = [monai_scores(*masks, spacing, 0.95 + slack) for slack in (-1e-5, 1e-5)]
        found = scores(*masks, spacing)
        assert any(found == pytest.approx(one, rel=1e-5) for one in expected)

    @pytest.mark.parametrize("spacing", SPACINGS)
    @pytest.mark.parametrize("shift", [3, 25])
    def test_equals_monai_on_smooth_shapes_near_and_far(self, spacing: Spacing, shift: int) -> None:
        grid = np.indices((30, 34, 60))
        truth = ((grid - np.array([15, 16, 14])[:, None, None, None]) ** 2).sum(0) < 90
        prediction = np.roll(truth, shift, axis=2) | block(truth.shape, *[slice(0, 2)] * 3)
        expected = monai_scores(prediction, truth, spacing)
        assert scores(prediction, truth, spacing) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_distances_equal_scipy_however_far_the_surfaces_lie(self, spacing: Spacing) -> None:
        generator = np.random.default_rng(0)
        truth = block((40, 41, 80), slice(0, 4), slice(3, 9), slice(1, 5))
        prediction = generator.random(truth.shape) < 0.0005
        prediction[30:36, 30:38, 60:70] = True
        found = surface_distances(prediction, truth, spacing)
        corners = [
            ndimage.uniform_filter(np.pad(mask, 1).astype(float), 2)[1:, 1:, 1:]
            for mask in (prediction, truth)
        ]
        surfaces = [(share > 1e-9) & (share < 1 - 1e-9) for share in corners]
        to_truth, to_prediction = (
            ndimage.distance_transform_edt(~surface, sampling=spacing)
            for surface in reversed(surfaces)
        )
        np.testing.assert_allclose(
            np.sort(found.prediction_to_truth), np.sort(to_truth[surfaces[0]]), rtol=1e-6
        )
        np.testing.assert_allclose(
            np.sort(found.truth_to_prediction), np.sort(to_prediction[surfaces[1]]), rtol=1e-6
        )


class TestGeometry:
    @settings(max_examples=60, deadline=None)
    @given(masks=mask_pairs, spacing=st.sampled_from(SPACINGS), data=st.data())
    def test_scores_ignore_swapping_mirroring_and_turning(
        self, masks: tuple[Mask, Mask], spacing: Spacing, data: st.DataObject
    ) -> None:
        order = data.draw(st.permutations(range(3)))
        mirrored = data.draw(st.sets(st.integers(0, 2)))
        first, second = (np.flip(mask, tuple(mirrored)).transpose(order) for mask in masks)
        turned_spacing = (spacing[order[0]], spacing[order[1]], spacing[order[2]])
        # A twisted cell has two equal halves to choose from, which differ where voxels are not
        # cubes: then areas, and with them the shares, move by a little.
        tolerance = 1e-6 if spacing == (1.0, 1.0, 1.0) else 0.05
        expected, found = scores(*masks, spacing), scores(second, first, turned_spacing)
        assert found[1] == pytest.approx(expected[1], abs=tolerance)
        if spacing == (1.0, 1.0, 1.0):
            assert found[0] == pytest.approx(expected[0])

    @pytest.mark.parametrize("spacing", SPACINGS)
    def test_area_of_a_large_box_is_that_of_its_faces(self, spacing: Spacing) -> None:
        size = np.array([40, 50, 60])
        mask = block((40, 60, 70), slice(None), slice(4, 54), slice(5, 65))
        area = surface_distances(mask, mask, spacing).truth_areas.sum()
        z, y, x = size * spacing
        # Edges and corners are cut off: under four percent at this size.
        assert 0.96 < area / (2 * (z * y + z * x + y * x)) < 1

    def test_area_of_one_voxel_is_that_of_an_octahedron(self) -> None:
        mask = block((1, 1, 1), slice(None))
        area = surface_distances(mask, mask, (1, 1, 1)).truth_areas.sum()
        assert area == pytest.approx(math.sqrt(3))

    @pytest.mark.parametrize("shift", [1, 2, 5, 40])
    def test_a_flat_slab_moved_across_itself_is_that_far_away(self, shift: int) -> None:
        truth = block((60, 30, 30), slice(4, 6))
        hd95, nsd = scores(np.roll(truth, shift, 0), truth, (1.5, 1, 1))
        assert hd95 == pytest.approx(shift * 1.5)
        assert nsd < 1

    def test_the_percentile_is_a_share_of_area(self) -> None:
        truth = block((40, 40, 40), slice(5, 25), slice(5, 25), slice(5, 25))
        speck = truth | block(truth.shape, slice(38, 39), slice(38, 39), slice(38, 39))
        distances = surface_distances(speck, truth, (1, 1, 1))
        assert hausdorff_distance(distances) == 0
        assert hausdorff_distance(distances, 100) > 20

    @pytest.mark.parametrize("area", [0.1, math.sqrt(3) / 8, 1 / 3, 0.7])
    @pytest.mark.parametrize("num_points", [20, 60, 340])
    def test_a_share_of_area_met_exactly_counts_as_met(self, area: float, num_points: int) -> None:
        far = np.arange(num_points) % 20 == 7
        distances = SurfaceDistances(
            prediction_to_truth=np.where(far, 9.0, 2.0),
            prediction_areas=np.full(num_points, area),
            truth_to_prediction=np.zeros(1),
            truth_areas=np.ones(1),
        )
        assert hausdorff_distance(distances) == 2
        assert hausdorff_distance(distances, 95.1) == 9

    def test_two_voxels_are_as_far_apart_as_their_corners(self) -> None:
        first, second = (
            block((3, 4, 9), *where)
            for where in (
                (slice(0, 1), slice(0, 1), slice(0, 1)),
                (slice(0, 1), slice(0, 1), slice(7, 8)),
            )
        )
        assert scores(first, second) == (7, 0)

    def test_a_tolerance_met_exactly_counts_as_within(self) -> None:
        truth = block((12, 12, 12), slice(2, 8), slice(2, 8), slice(2, 8))
        distances = surface_distances(np.roll(truth, 3, 2), truth, (0.1, 0.1, 0.1))
        assert surface_dice(distances, 0.3) == 1
        assert surface_dice(distances, 0.29) < 1


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((4, 5, 6), bool),
        block((4, 5, 6), slice(0, 1), slice(0, 1), slice(0, 1)),
        block((4, 5, 6), slice(3, 4), slice(4, 5), slice(5, 6)),
        block((4, 5, 6), slice(None), slice(None), slice(0, 1)),
    ],
    ids=["full", "first voxel", "last voxel", "border slab"],
)
def test_a_mask_is_at_no_distance_from_itself(mask: Mask) -> None:
    assert scores(mask, mask, (5, 1, 0.5)) == (0, 1)


def test_an_empty_mask_is_refused() -> None:
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    with pytest.raises(ValueError, match="empty"):
        surface_distances(empty, full, (1, 1, 1))
    with pytest.raises(ValueError, match="empty"):
        surface_distances(full, empty, (1, 1, 1))


@pytest.mark.parametrize(
    ("percent", "expected"), [(0.5, 1.0), (50.0, 50.0), (94.5, 95.0), (95.0, 95.0), (100.0, 100.0)]
)
def test_a_percentile_is_the_distance_within_which_that_share_lies(
    percent: float, expected: float
) -> None:
    """Of the distances 1 to 100, each of the same area."""
    far, near = np.arange(100.0, 0, -1), np.zeros(3)
    for ours, theirs in ((far, near), (near, far)):
        distances = SurfaceDistances(
            prediction_to_truth=ours,
            prediction_areas=np.full(len(ours), 0.5),
            truth_to_prediction=theirs,
            truth_areas=np.full(len(theirs), 2.0),
        )
        assert hausdorff_distance(distances, percent) == expected
        if percent == 95:
            assert hausdorff_distance(distances) == expected


def test_distances_count_by_area() -> None:
    distances = SurfaceDistances(
        prediction_to_truth=np.array([1.0, 2.0, 3.0]),
        prediction_areas=np.array([94.0, 2.0, 4.0]),
        truth_to_prediction=np.array([0.0]),
        truth_areas=np.array([1.0]),
    )
    assert hausdorff_distance(distances) == 2.0
    assert hausdorff_distance(distances, 97.0) == 3.0


@pytest.mark.parametrize(("num_stray", "hd95"), [(10, 0.0), (11, 9.0)])
def test_hd95_of_a_cube_with_stray_voxels(num_stray: int, hd95: float) -> None:
    """The surface of a cube of 8 voxels is 294 corners of area 1 in its faces, 84 of sqrt(1/2) on
    its edges and 8 of sqrt(3)/8; that of a single voxel is 8 of sqrt(3)/8. So 10 stray voxels have
    4.7 % of the area and 11 have 5.1 %. Half of their corners are 9 mm from the cube."""
    truth = np.zeros((30, 12, 12), bool)
    truth[2:10, 2:10, 2:10] = True
    prediction = truth.copy()
    positions = [(y, x) for y in (2, 4, 6, 8) for x in (2, 4, 6, 8)]
    for y, x in positions[:num_stray]:
        prediction[19, y, x] = True
    distances = surface_distances(prediction, truth, (1.0, 1.0, 1.0))
    stray = num_stray * math.sqrt(3)
    cube = 294 + 84 * math.sqrt(1 / 2) + math.sqrt(3)
    assert distances.prediction_areas.sum() == pytest.approx(cube + stray)
    assert hausdorff_distance(distances) == hd95
    scored = score_region(prediction, truth, (1.0, 1.0, 1.0))
    assert scored.hd95 == hd95
