"""Distances between the surfaces of two masks: HD95 and the normalised surface Dice.

The definition is that of the BraTS 2023 evaluation (Nikolov et al. 2018, arXiv:1809.04430, section
"surface Dice"): the surface runs between voxels, so it is sampled at the corners voxels share. A
corner belongs to the surface when its 2 x 2 x 2 cell holds both mask and background, outside the
volume counting as background, and it weighs the area that marching cubes puts into that cell. Both
metrics are shares of area, so neither depends on how many sample points a slanted surface has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_cache.imaging.bounding_box import bounding_box
from brats_train.inference.components import Mask

__all__ = ["Spacing", "SurfaceDistances", "hausdorff_distance", "surface_dice", "surface_distances"]

Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]
# Distances come from a float32 transform: a share of area or a distance that equals its limit but
# for rounding counts as equal.
_RELATIVE_SLACK = 1e-6
# Corners around a surface within which the other surface is looked for first.
_NEAR = 16
# Marching cubes (Lorensen and Cline 1987) on a unit cell, cut at the middle of its edges. Each key
# is a set of corners connected along edges, as the bits of the cell read in C order (bit 7 is
# corner 0,0,0); each value holds the area vectors of the plane facets that cut the set off. All
# other cells are mirror images, rotations, complements or disjoint unions of these six.
_FACETS: dict[int, tuple[tuple[float, float, float], ...]] = {
    0b00000001: ((1 / 8, 1 / 8, 1 / 8),),  # one corner: a triangle
    0b00000011: ((1 / 2, 1 / 2, 0),),  # an edge: a rectangle
    0b00000111: ((1 / 2, 0, 0), (3 / 8, 3 / 8, 3 / 8)),  # an L: a triangle and a trapezium
    0b00001111: ((1, 0, 0),),  # a face: a square
    0b00010111: ((3 / 4, 3 / 4, 3 / 4),),  # a corner and its neighbours: a regular hexagon
    0b00011011: ((1 / 2, 1 / 2, 1 / 2), (0, 1 / 4, 1 / 4), (1 / 4, 0, 1 / 4)),  # a twisted path
}


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distances of each surface to the other.

    Attributes:
        prediction_to_truth: (P,) float64 mm, from each corner of the predicted surface.
        prediction_areas: (P,) float64 mm^2, the area each of them stands for.
        truth_to_prediction: (T,) float64 mm, from each corner of the true surface.
        truth_areas: (T,) float64 mm^2.
    """

    prediction_to_truth: Floats
    prediction_areas: Floats
    truth_to_prediction: Floats
    truth_areas: Floats


def surface_distances(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> SurfaceDistances:
    """Measures the distance from every surface corner of each mask to the nearest of the other.

    Args:
        prediction: (Z, Y, X) bool, not empty.
        truth: (Z, Y, X) bool of the same shape, not empty.
        spacing_mm: Size of a voxel along Z, Y, X in mm.

    Raises:
        ValueError: A mask is empty, so it has no surface.
    """
    if not prediction.any() or not truth.any():
        raise ValueError("an empty mask has no surface; the rule for empty masks comes first")
    box = bounding_box(prediction | truth)
    prediction_codes, truth_codes = (_corner_codes(mask[box]) for mask in (prediction, truth))
    prediction_surface, truth_surface = (
        (codes != 0) & (codes != 255) for codes in (prediction_codes, truth_codes)
    )
    areas = _cell_areas(tuple(map(float, spacing_mm)))
    return SurfaceDistances(
        prediction_to_truth=_distances_to(truth_surface, prediction_surface, spacing_mm),
        prediction_areas=areas[prediction_codes[prediction_surface]],
        truth_to_prediction=_distances_to(prediction_surface, truth_surface, spacing_mm),
        truth_areas=areas[truth_codes[truth_surface]],
    )


def hausdorff_distance(distances: SurfaceDistances, percent: float = 95.0) -> float:
    """Computes the robust Hausdorff distance, the larger of the two directed percentiles.

    A directed percentile is the smallest distance within which at least `percent` of that
    surface's area lies: an observed distance, never interpolated.

    Args:
        distances: Of two masks.
        percent: 0 to 100; 100 gives the plain Hausdorff distance.

    Returns:
        The distance in mm.
    """
    return max(
        _area_percentile(distances.prediction_to_truth, distances.prediction_areas, percent),
        _area_percentile(distances.truth_to_prediction, distances.truth_areas, percent),
    )


def surface_dice(distances: SurfaceDistances, tolerance_mm: float = 1.0) -> float:
    """Computes the normalised surface Dice: the share of both surfaces' area within a tolerance.

    Args:
        distances: Of two masks.
        tolerance_mm: Distances up to it count as agreement.

    Returns:
        0 to 1.
    """
    limit = tolerance_mm * (1 + _RELATIVE_SLACK)
    within = (
        distances.prediction_areas[distances.prediction_to_truth <= limit].sum()
        + distances.truth_areas[distances.truth_to_prediction <= limit].sum()
    )
    return float(within / (distances.prediction_areas.sum() + distances.truth_areas.sum()))


def _corner_codes(mask: Mask) -> NDArray[np.uint8]:
    """(Z, Y, X) bool to (Z + 1, Y + 1, X + 1) uint8: which of the eight voxels that meet at a
    corner are set, as the bits of the 2 x 2 x 2 cell read in C order."""
    codes: NDArray[np.uint8] = np.pad(mask, 1).view(np.uint8)
    codes = (codes[:, :, :-1] << np.uint8(1)) | codes[:, :, 1:]
    codes = (codes[:, :-1] << np.uint8(2)) | codes[:, 1:]
    return (codes[:-1] << np.uint8(4)) | codes[1:]


def _distances_to(surface: Mask, points: Mask, spacing_mm: Spacing) -> Floats:
    """Distance in mm from each of `points` to the nearest corner of `surface`, (P,) float64."""
    # One stray component stretches the volume across the head, while the surface next to the
    # points usually lies next to them: 30 ns a voxel that are rarely worth spending.
    near = bounding_box(points, margin=_NEAR)
    squares = _squared_distances(surface[near], spacing_mm)[points[near]]
    is_certain = squares.max() <= (_NEAR * min(spacing_mm)) ** 2
    if not is_certain and points[near].shape != points.shape:
        squares = _squared_distances(surface, spacing_mm)[points]
    distances: Floats = np.sqrt(squares.astype(np.float64))
    return distances


def _squared_distances(surface: Mask, spacing_mm: Spacing) -> NDArray[np.float32]:
    """Squared distance in mm^2 of every corner to `surface`, infinite where that is empty."""
    # Squares stay exact in float32 at 1 mm, where they are integers; roots would not.
    anisotropy = tuple(map(float, spacing_mm))
    return np.asarray(edt.edtsq(~surface, anisotropy=anisotropy, parallel=1))


def _area_percentile(distances: Floats, areas: Floats, percent: float) -> float:
    order = np.argsort(distances)
    area_within = np.cumsum(areas[order])
    wanted = percent / 100 * area_within[-1] * (1 - _RELATIVE_SLACK)
    return float(distances[order[np.searchsorted(area_within, wanted)]])


@cache
def _cell_areas(spacing_mm: Spacing) -> Floats:
    """Surface area in mm^2 of each of the 256 cells, (256,) float64, indexed by its code."""
    z, y, x = spacing_mm
    areas = np.zeros(256)
    for code in range(1, 255):
        facets = np.array(_cell_facets(code)) * (y * x, z * x, z * y)
        areas[code] = np.linalg.norm(facets, axis=1).sum()
    return areas


def _cell_facets(code: int) -> list[tuple[float, ...]]:
    """Area vectors of a cell's surface. The scarcer kind of corner is what is cut off, piece by
    piece: pieces that touch only across a face diagonal stay apart."""
    cell = _cell(code)
    if cell.sum() > 4:
        cell = ~cell
    pieces, num_pieces = ndimage.label(cell)
    return [
        facet for i in range(1, num_pieces + 1) for facet in _facets_by_piece()[_code(pieces == i)]
    ]


@cache
def _facets_by_piece() -> dict[int, list[tuple[float, ...]]]:
    """`_FACETS` in all orientations. Mirroring leaves the size of an area vector alone."""
    turned = {}
    for code, facets in _FACETS.items():
        for order, steps in product(permutations(range(3)), product((1, -1), repeat=3)):
            mirror = tuple(slice(None, None, step) for step in steps)
            piece = _cell(code).transpose(order)[mirror]
            turned[_code(piece)] = [tuple(facet[axis] for axis in order) for facet in facets]
    return turned


def _cell(code: int) -> Mask:
    return np.unpackbits(np.uint8(code)).reshape(2, 2, 2).astype(bool)


def _code(cell: Mask) -> int:
    return int(np.packbits(cell)[0])
