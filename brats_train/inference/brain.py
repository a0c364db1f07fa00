"""The brain mask on the scan's own grid, recovered from prepared slices."""

from __future__ import annotations

import numpy as np

__all__ = ["brain_of_images"]


def brain_of_images(images: np.ndarray, height: int, width: int, fit: str) -> np.ndarray:
    """Finds the brain of prepared slices on the grid that they were made from.

    Prepared pixels are exactly 0 where every source pixel that they were interpolated from lies
    outside the brain. So a source pixel lies outside where any prepared pixel that it contributed
    to is 0 in all modalities. Gaps in the brain that are one pixel wide come out filled; all else
    is exact for slices that were not made smaller.

    Args:
        images: (n, C, S, S) float16, as `prepare_images` makes them.
        height: Y, rows of a slice of the scan.
        width: X, columns of a slice of the scan.
        fit: "resize" or "pad", see `Preparation`.

    Returns:
        (n, Y, X) bool, True in the brain.
    """
    size = images.shape[-1]
    # As integers: of float16 numpy converts every value first. The sign of a zero does not count.
    bits = np.bitwise_or.reduce(images.view(np.uint16), axis=1)
    is_empty = (bits & 0x7FFF) == 0
    if fit == "pad":
        top, left = (size - height) // 2, (size - width) // 2
        return ~is_empty[:, top : top + height, left : left + width]
    is_outside = _any_in_ranges(is_empty, 1, *_support(height, size))
    return ~_any_in_ranges(is_outside, 2, *_support(width, size))


def _support(num_source: int, num_prepared: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last + 1 prepared pixel that bilinear interpolation makes of each source pixel.

    Prepared pixel i lies at source position (i + 1/2) * source / prepared - 1/2 and takes from the
    pixels less than 1 away; in integers, so that no rounding can move a border. A source pixel that
    none takes from, which occurs where slices were made smaller, has the one at its own place.
    """
    source = np.arange(num_source)[:, None]
    prepared = np.arange(num_prepared)[None]
    distance = abs((2 * prepared + 1) * num_source - (2 * source + 1) * num_prepared)
    is_part = distance < 2 * num_prepared
    own = (2 * source[:, 0] + 1) * num_prepared // (2 * num_source)
    has_any = is_part.any(axis=1)
    first = np.where(has_any, is_part.argmax(axis=1), own)
    return first, first + np.maximum(is_part.sum(axis=1), 1)


def _any_in_ranges(pixels: np.ndarray, axis: int, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Whether any pixel is True, for each range of `axis`."""
    found = pixels.take(first, axis)
    for step in range(1, int((end - first).max())):
        found |= pixels.take(np.minimum(first + step, end - 1), axis)
    return found
