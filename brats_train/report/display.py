"""Preparing slices for display: which ones, grey values, cropping. Pure functions on arrays."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = [
    "MODALITY_NAMES",
    "choose_slices",
    "choose_window",
    "on_scan_grid",
    "scale_bar_mm",
    "to_grey",
    "without_tumour",
]

_RANGE = (0.1, 99.9)  # percentiles of the brain that grey values span
# A window: percentiles, and how bright the median of the brain without the tumour is at least.
_BLACK, _WHITE, _MEDIAN_SHARE = 1.0, 99.5, 0.3
_MIN_SHARE = 0.1  # of the brain that must be left beside the tumour
_BARS_MM = (10, 20, 50, 100)
MODALITY_NAMES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}


def choose_slices(z_indices: np.ndarray, areas: np.ndarray, peak: int, limit: int) -> np.ndarray:
    """Chooses slices to show, evenly spaced over those with a mask, or over all where none has one.

    Args:
        z_indices: (n,) int, z of the slices to choose from, ascending.
        areas: (n,) pixels of mask, true or predicted, in each.
        peak: A z that must be among those chosen if it has a mask.
        limit: The most slices to choose.

    Returns:
        z of the chosen slices, ascending.
    """
    with_mask = z_indices[areas > 0] if (areas > 0).any() else z_indices
    num = min(limit, len(with_mask))
    chosen = with_mask[np.linspace(0, len(with_mask) - 1, num).round().astype(int)]
    if peak in with_mask:
        chosen[np.abs(chosen - peak).argmin()] = peak
    return chosen


def on_scan_grid(
    images: np.ndarray, height: int, width: int, fit: str
) -> tuple[np.ndarray, np.ndarray]:
    """Resamples cached slices to the scan's own grid, as `ensemble.to_native` does probabilities.

    Outside the brain slices hold 0, which is not a dark value after z-scoring, and resampling has
    mixed it into the outermost pixels of the brain. Those are replaced by values next to them
    before interpolation, and left out of the brain that is returned.

    Args:
        images: (n, C, S, S) float16.
        height: Rows of the scan's slices.
        width: Columns of the scan's slices.
        fit: "resize" or "pad", as the cache was built.

    Returns:
        (n, C, height, width) float32 images and (n, height, width) bool, the brain.
    """
    num, channels, size, _ = images.shape
    values = images.astype(np.float32)
    brain = (images != 0).any(axis=1)
    if fit == "pad":
        top, left = (size - height) // 2, (size - width) // 2
        inside = slice(top, top + height), slice(left, left + width)
        return values[:, :, *inside], brain[:, *inside]
    native = np.empty((num, channels, height, width), np.float32)
    within = np.empty((num, height, width), bool)
    for number in range(num):
        whole = brain[number].astype(np.uint8)
        core = cv2.erode(whole, np.ones((3, 3))) if (height, width) != (size, size) else whole
        within[number] = cv2.resize(core, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        for channel in range(channels):
            filled = _fill_border(values[number, channel], core)
            native[number, channel] = cv2.resize(filled, (width, height))
    return native, within


def to_grey(images: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Converts images to grey values, black outside the brain.

    Args:
        images: (n, C, Y, X) float32.
        brain: (n, Y, X) bool.

    Returns:
        (n, C, Y, X) uint8; in the brain 1 to 255, from the 0.1th to the 99.9th percentile of each
        modality. What is shown of it is a window, see `choose_window`.
    """
    grey = np.zeros(images.shape, np.uint8)
    if not brain.any():
        return grey
    for channel in range(images.shape[1]):
        values = images[:, channel][brain]
        low, high = np.percentile(values, _RANGE)
        # Above 0, so that the darkest tissue can be told from outside the head.
        scaled = 1 + 254 * (values - low) / max(float(high - low), 1e-6)
        grey[:, channel][brain] = np.clip(scaled, 1, 255).round()
    return grey


def choose_window(brain: np.ndarray, beside: np.ndarray) -> tuple[float, float]:
    """Chooses the values that are shown black and white.

    Black is the 1st percentile of the brain without the tumour. White is as far above it as gives
    the median 0.3 of the grey scale, so that a bright tumour keeps its texture and does not darken
    the tissue around it, or the 99.5th percentile of the whole brain where that is less.

    Args:
        brain: (n,) values in the brain, of any real dtype.
        beside: (m,) those without the tumour.

    Returns:
        Low and high, of which high is larger.
    """
    if not brain.size or not beside.size:
        return 0.0, 1.0
    low, median = (float(value) for value in np.percentile(beside, (_BLACK, 50)))
    white = float(np.percentile(brain, _WHITE))
    high = min(white, low + (median - low) / _MEDIAN_SHARE)
    return low, max(high, low + 1e-6 * max(1.0, abs(low)))


def without_tumour(brain: np.ndarray, tumour: np.ndarray) -> np.ndarray:
    """The brain beside a tumour; all of it where a mask leaves less than a tenth, as a bad one may.

    Args:
        brain: bool, of any shape.
        tumour: bool, of the same shape.
    """
    beside = brain & ~tumour
    is_enough = np.count_nonzero(beside) >= _MIN_SHARE * np.count_nonzero(brain)
    return beside if is_enough else brain


def scale_bar_mm(width_mm: float) -> int:
    """The length of a picture's scale bar: the longest up to 0.45 of its width, 10 mm at least."""
    return max((bar for bar in _BARS_MM if bar <= 0.45 * width_mm), default=_BARS_MM[0])


def _fill_border(values: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Sets each pixel that touches `core` from outside to the mean of its neighbours in `core`."""
    kernel = np.ones((3, 3), np.float32)
    total = cv2.filter2D(values * core, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    count = cv2.filter2D(core.astype(np.float32), -1, kernel, borderType=cv2.BORDER_CONSTANT)
    return np.where(core > 0, values, total / np.maximum(count, 1))
