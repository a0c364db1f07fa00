"""The tissues of a synthetic brain: fluid, folded cortex, cerebellum, white matter."""

from __future__ import annotations

import cv2
import numpy as np

from brats_cache.synthetic.fields import Grid, noise, ramp

__all__ = ["RADII", "bridge", "tissues"]

RADII = (66.0, 87.0, 58.0)  # of the cerebrum: x, y, z
_FOLD_SIZE = 320  # pixels along a side of the map of folds of one hemisphere
_FOLD_REACH = 1.46  # a hemisphere is a disc of radius sqrt(2) on that map; the rest is margin
_FOLD_MM = 71.0 * 2 * _FOLD_REACH / _FOLD_SIZE  # a pixel of that map at the surface of the brain


def tissues(
    rng: np.random.Generator,
    grid: Grid,
    position: np.ndarray,
    depths: tuple[np.ndarray, np.ndarray],
    chamber: np.ndarray,
    dome: np.ndarray,
    nucleus: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes the fractions of healthy tissue in each voxel of the brain.

    Args:
        rng: Draws the folds and the width of the fluid around the brain.
        grid: The grid of the volume.
        position: (3, n) float32, x, y, z of the voxels in the head's own frame, mm.
        depths: Depths below the surfaces of cerebrum and hindbrain, (n,) float32 each, mm.
        chamber: (n,) float32, fraction of ventricle, 0 to 1.
        dome: Lattice field, depth below the convex surface of the hemispheres, mm.
        nucleus: (n,) float32, depth inside deep grey matter, mm.

    Returns:
        Fluid, grey and white matter, (n,) float32 each, adding to 1.
    """
    soft = 0.7 * grid.voxel_mm  # partial volume blurs a border over about a voxel
    fluid_mm = 0.4 + np.clip(rng.normal(0.3, 0.5), 0, 1.5) + 0.4 * grid.at_brain(noise(rng, 12))
    distance, sulcus_depth, half_width = _look_up_folds(_fold_map(rng), position)
    midline = np.hypot(position[0], np.maximum(bridge(position), 0))  # distance to the fissure
    below = np.minimum(grid.at_brain(dome), midline + 8) - sulcus_depth
    sulcal = np.hypot(distance, np.maximum(below, 0)) - half_width
    cortex = np.minimum.reduce([depths[0] - fluid_mm, midline - 0.7, sulcal])

    # The cerebellum folds into thin parallel leaves.
    x, y, z = position
    leaves = np.sin((z + 0.35 * np.abs(x) + 0.2 * y) * np.float32(2 * np.pi / 4.6))
    folia = np.minimum(depths[1] - fluid_mm, 4.5 + 2.2 * leaves - 0.25 * (12 - depths[1]))
    folia = np.where(ramp(np.hypot(x, y - 18) - 15, 4) > 0.5, folia, depths[1] - fluid_mm)
    pial = np.where(depths[0] > depths[1], cortex, folia)

    csf = ramp(-pial, soft)
    csf += chamber * (1 - csf)
    white = ramp(pial - 2.5, soft + 0.5) * (1 - 0.6 * ramp(nucleus, soft + 1.0))
    white *= 1 - csf
    return csf, 1 - csf - white, white


def bridge(position: np.ndarray) -> np.ndarray:
    """Measures the depth inside the zone around corpus callosum and thalamus where the hemispheres
    are joined, as it projects on the midline.

    Args:
        position: x, y, z in the head's own frame, mm.

    Returns:
        mm, negative outside.
    """
    return 24 * (1 - np.sqrt(((position[1] - 3) / 40) ** 2 + (position[2] / 24) ** 2))


def _fold_map(rng: np.random.Generator) -> np.ndarray:
    """Where the sulci run: (_FOLD_SIZE, 2 * _FOLD_SIZE, 3) float32, left hemisphere beside right,
    with distance to the nearest sulcus, its depth and its half-width, in mm at the surface.

    The sulci are the zero lines of band-limited noise, which wind and branch at a nearly constant
    spacing; the lateral sulcus, present in every brain, is drawn in.
    """
    size = _FOLD_SIZE
    white_noise = rng.standard_normal((3, size, 2 * size), dtype=np.float32)
    band = cv2.GaussianBlur(white_noise[0], (0, 0), 3.1 / _FOLD_MM)
    band -= cv2.GaussianBlur(white_noise[0], (0, 0), 5.8 / _FOLD_MM)
    positive = (band > 0).astype(np.uint8)
    distance = _distance_to_zero(positive) + _distance_to_zero(1 - positive) - 0.5

    lateral = np.ones((size, 2 * size), np.uint8)
    course = np.array([(-0.42, -0.42), (-0.18, -0.15), (-0.08, 0.12), (0.10, 0.34)])  # (z, y)
    line = np.round((course / _FOLD_REACH + 1) * (size / 2)).astype(np.int32)
    for start in (0, size):
        cv2.polylines(lateral, [np.add(line, (start, 0))], isClosed=False, color=0)
    to_lateral = _distance_to_zero(lateral) * _FOLD_MM
    near = np.exp(-((to_lateral / 5) ** 2))

    smooth = [cv2.GaussianBlur(plane, (0, 0), 6 / _FOLD_MM) for plane in white_noise[1:]]
    depth, width = (plane / plane.std() for plane in smooth)
    return np.dstack(
        [
            np.minimum(distance * _FOLD_MM, to_lateral),
            np.clip(14 + 5 * depth, 4, 24) * (1 - near) + 28 * near,
            np.clip(0.2 + 0.4 * width, -0.5, 1.2) + 0.8 * near,
        ]
    )


def _distance_to_zero(flags: np.ndarray) -> np.ndarray:
    return cv2.distanceTransform(flags, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _look_up_folds(folds: np.ndarray, position: np.ndarray) -> np.ndarray:
    """(3, n): the fold map at the direction of each voxel as seen from the middle of the brain,
    by Lambert's azimuthal equal-area projection of each hemisphere onto a disc; distances shrink
    with the radius."""
    x, y, z = (axis / np.float32(r) for axis, r in zip(position, RADII, strict=True))
    radius = np.maximum(np.sqrt(x * x + y * y + z * z), np.float32(0.05))
    scale = np.sqrt(2 / (1 + np.abs(x) / radius)) / (radius * np.float32(_FOLD_REACH))
    half = np.float32(_FOLD_SIZE / 2)
    rows = (y * scale + 1) * half
    columns = (z * scale + 1) * half + np.float32(_FOLD_SIZE) * (x > 0)
    num_voxels = len(rows)
    width = 1024  # OpenCV takes an image with sides below 32768, not a list
    padded = np.zeros((2, -(-num_voxels // width) * width), np.float32)
    padded[0, :num_voxels], padded[1, :num_voxels] = columns, rows
    map_x, map_y = padded.reshape(2, -1, width)
    image = cv2.remap(folds, map_x, map_y, cv2.INTER_LINEAR)
    looked_up = image.reshape(-1, 3)[:num_voxels].T.copy()
    looked_up[[0, 2]] *= radius
    return looked_up
