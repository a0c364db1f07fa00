"""Prepares slices of volumes, as pure functions of arrays, for the cache and for prediction alike.

Shapes: volumes are canonical (Z, Y, X), slices (n, S, S). The pixel grid has half-pixel centres for
images and masks alike: pixel i of n covers [i, i + 1) / n of the field of view. Images are
resampled bilinearly (OpenCV's INTER_LINEAR, which equals torch's `align_corners=False`), masks by
exact nearest neighbour on the same grid, computed here in integers because OpenCV's INTER_NEAREST
lies on another one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from brats_cache.imaging.bounding_box import bounding_box
from brats_cache.imaging.half import to_float16
from brats_cache.imaging.window import Window

__all__ = [
    "FITS",
    "NORMALIZATIONS",
    "Normalization",
    "Preparation",
    "brain_of",
    "fit_masks",
    "measure",
    "nearest_index",
    "prepare_images",
    "restore_masks",
]

FITS = ("resize", "pad")
NORMALIZATIONS = ("zscore", "percentile", "none")
PERCENTILES = (0.5, 99.5)
FLOAT16_MAX = 65504.0
# A spread below this part of the values' size is what is left of rounding them to float32.
MIN_RELATIVE_SPREAD = 1e-6
SPREADS = (1e-30, 1e30)  # float32 holds their inverse and everything in between


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Everything that decides a slice's pixels, kept in the cache and in every checkpoint.

    Attributes:
        modalities: In channel order.
        size: Side S of a slice in pixels.
        fit: "resize" stretches each axis to S, "pad" centres the slice without interpolation.
        normalize: "zscore", "percentile" or "none", see `measure`.
    """

    modalities: tuple[str, ...]
    size: int = 256
    fit: str = "resize"
    normalize: str = "zscore"


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """How the values of one modality are normalised: brain voxels become
    `(value - center) * scale`, all others 0.

    Attributes:
        center: Subtracted, in the units of the scan.
        scale: Multiplied after that.
        clip: Whether the result is clipped to [0, 1].
    """

    center: float
    scale: float
    clip: bool = False


def brain_of(volumes: Sequence[np.ndarray]) -> np.ndarray:
    """Finds the brain: the voxels that are not 0 in any modality.

    Args:
        volumes: (Z, Y, X) of any real dtype, at least one.

    Returns:
        (Z, Y, X) bool.
    """
    brain = np.zeros(volumes[0].shape, bool)
    one = np.empty(brain.shape[1:], bool)
    for z, inside in enumerate(brain):  # slice by slice, which stays in the processor's cache
        for volume in volumes:
            np.not_equal(volume[z], 0, out=one)
            np.logical_or(inside, one, out=inside)
    return brain


def measure(values: np.ndarray, normalize: str) -> Normalization:
    """Measures how one modality is to be normalised.

    Args:
        values: (n,) of any real dtype, its brain voxels.
        normalize: "zscore" for (x - mean) / standard deviation of the population, both in float64;
            "percentile" for the 0.5th to the 99.5th percentile to [0, 1], clipped; "none".

    Raises:
        ValueError: The voxels have no spread to divide by, or a result would not fit in float16.
            (A z-score does: of n voxels none lies beyond the square root of n.)
    """
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    values = values.astype(np.float64)  # differences of integers overflow inside np.percentile
    if normalize == "none":
        if largest > FLOAT16_MAX:
            raise ValueError(f"the value {largest:g} does not fit in float16 (65504 at most)")
        return Normalization(center=0.0, scale=1.0)
    if normalize == "zscore":
        center = float(values.mean())
        np.subtract(values, center, out=values)
        np.square(values, out=values)
        spread = math.sqrt(float(values.mean()))
    elif normalize == "percentile":
        center, top = (float(value) for value in np.percentile(values, PERCENTILES))
        spread = top - center
    else:
        raise ValueError(f"normalize is {normalize!r}, one of {', '.join(NORMALIZATIONS)} expected")
    low, high = SPREADS
    if spread <= MIN_RELATIVE_SPREAD * abs(center):
        raise ValueError(f"nearly every brain voxel holds the same value ({center:g})")
    if spread < low or largest > high:
        raise ValueError(f"values up to {largest:g} with a spread of {spread:g} overflow float32")
    return Normalization(center=center, scale=1.0 / spread, clip=normalize == "percentile")


def prepare_images(
    volumes: Sequence[np.ndarray],
    brain: np.ndarray,
    normalizations: Sequence[Normalization],
    preparation: Preparation,
    z_indices: Sequence[int] | np.ndarray,
    window: Window | None = None,
) -> np.ndarray:
    """Prepares axial slices of all modalities.

    Args:
        volumes: C arrays (Z, Y, X) of any real dtype.
        brain: (Z, Y, X) bool.
        normalizations: One a modality.
        preparation: Size and fit of the slices.
        z_indices: (n,) the slices.
        window: What `volumes` and `brain` are of the whole scan; its brain is all inside. By
            default the whole. The result is the same.

    Returns:
        (n, C, S, S) float16.
    """
    size = preparation.size
    images = np.zeros((len(z_indices), len(volumes), size, size), np.float16)
    if len(z_indices) == 0:
        return images
    depth, height, width = brain.shape
    window = window or Window.whole((depth, height, width))
    indices = [window.index(int(z)) for z in z_indices]
    weights = np.zeros((len(indices), height, width), np.float32)
    for weight, index in zip(weights, indices, strict=True):
        if index is not None:
            weight[...] = brain[index]
    box = bounding_box(np.asarray(weights.any(axis=0)))
    for channel, (volume, normalization) in enumerate(zip(volumes, normalizations, strict=True)):
        slices = [None if index is None else volume[index] for index in indices]
        _fill_slices(slices, weights, normalization, preparation, window, box, images[:, channel])
    return images


def _fill_slices(
    slices: Sequence[np.ndarray | None],
    weights: np.ndarray,
    normalization: Normalization,
    preparation: Preparation,
    window: Window,
    box: tuple[slice, ...],
    out: np.ndarray,
) -> None:
    """Normalises and fits slices of one modality into `out`, (n, S, S) float16 zeros.

    slices are n windows (Y, X) of them, None for one outside the window. weights is (n, Y, X)
    float32: 1 in the brain, 0 outside. Arithmetic is float32, slice by slice so that it stays in
    the processor's cache. Nothing is computed outside `box`, lines and columns of the window, where
    there is no brain: most of a slice is background.
    """
    _, height, width = window.shape
    size = preparation.size
    normal = np.zeros((height, width), np.float32)
    fitted = np.zeros((size, size), np.float32)
    # Where values are large and their spread is small, float32 rounds the centre by a noticeable
    # part of the spread; what that loses is put back at the end.
    center, scale = np.float32(normalization.center), np.float32(normalization.scale)
    rounding_error = np.float32((float(center) - normalization.center) * normalization.scale)
    # From the window to the whole slice.
    scan_box = _moved(box[0], window.box[1].start), _moved(box[1], window.box[2].start)
    top, left = (size - height) // 2, (size - width) // 2
    if preparation.fit == "pad":
        target = _moved(scan_box[0], top), _moved(scan_box[1], left)
    else:
        target = _reach(scan_box[0], height, size), _reach(scan_box[1], width, size)
    # Where scans hold 0 and there is no brain, what is computed below is -0 or 0.
    outside = (np.float32(0) - center) * scale + rounding_error
    background = np.float32(0) * (np.clip(outside, 0.0, 1.0) if normalization.clip else outside)
    normal[scan_box[0]] = background
    inside = normal[scan_box[0], window.box[2]]
    for index, values in enumerate(slices):
        if values is None:
            inside[...] = background
        else:
            np.subtract(values[box[0]], center, out=inside, dtype=np.float32)
            np.multiply(inside, scale, out=inside)
            np.add(inside, rounding_error, out=inside)
            if normalization.clip:
                np.clip(inside, 0.0, 1.0, out=inside)
            np.multiply(inside, weights[index, box[0]], out=inside)
        if preparation.fit == "pad":
            fitted[target] = normal[scan_box]
        else:
            cv2.resize(normal, (size, size), dst=fitted, interpolation=cv2.INTER_LINEAR)
        to_float16(fitted[target], out[index][target])


def _moved(side: slice, distance: int) -> slice:
    return slice(side.start + distance, side.stop + distance)


def _reach(side: slice, num_source: int, num_target: int) -> slice:
    """The target pixels that bilinear interpolation can make of the source pixels `side`: those
    whose centre lies less than a source pixel outside it, and one more for rounding."""
    first = math.floor((side.start - 0.5) * num_target / num_source - 0.5) - 1
    last = math.ceil((side.stop + 0.5) * num_target / num_source - 0.5) + 1
    return slice(max(first, 0), min(max(last, 0), num_target))


def nearest_index(num_source: int, num_target: int) -> np.ndarray:
    """Returns the source pixel that holds the centre of each target pixel: (num_target,) int64.

    floor((i + 1/2) * source / target), in integers, so that no rounding can move a border.
    """
    return (2 * np.arange(num_target) + 1) * num_source // (2 * num_target)


def fit_masks(masks: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Puts masks on the grid of `prepare_images`.

    Args:
        masks: (n, Y, X) labels of any integer dtype.
        size: S.
        fit: "resize" for the nearest source pixel, or "pad".

    Returns:
        (n, S, S) of the same dtype.
    """
    num, height, width = masks.shape
    if fit == "pad":
        top, left = (size - height) // 2, (size - width) // 2
        fitted = np.zeros((num, size, size), masks.dtype)
        fitted[:, top : top + height, left : left + width] = masks
        return fitted
    lines = masks.take(nearest_index(height, size), axis=1)
    return lines.take(nearest_index(width, size), axis=2)


def restore_masks(fitted: np.ndarray, height: int, width: int, fit: str) -> np.ndarray:
    """Inverts `fit_masks` exactly.

    Args:
        fitted: (n, S, S) labels.
        height: Y.
        width: X.
        fit: As for `fit_masks`.

    Returns:
        (n, Y, X) of the same dtype.

    Raises:
        ValueError: Y or X is larger than S, so that pixels were dropped.
    """
    size = fitted.shape[-1]
    if max(height, width) > size:
        raise ValueError(f"a {height} x {width} slice cannot be recovered from {size} x {size}")
    if fit == "pad":
        top, left = (size - height) // 2, (size - width) // 2
        return fitted[:, top : top + height, left : left + width]
    rows = np.searchsorted(nearest_index(height, size), np.arange(height))
    columns = np.searchsorted(nearest_index(width, size), np.arange(width))
    return fitted[:, rows[:, None], columns]
