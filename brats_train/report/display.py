"""Making slices fit to be looked at: which ones, how bright, cut to the head. Pure functions."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["PERCENTILES", "box_of", "choose_slices", "on_scan_grid", "to_grey"]

PERCENTILES = (0.5, 99.5)


def choose_slices(places: np.ndarray, areas: np.ndarray, peak: int, limit: int) -> np.ndarray:
    """Up to `limit` of the slices `places`, ascending, `peak` among them, evenly spaced over those
    that hold something; over all where none does.

    places  (n,) int, ascending z
    areas   (n,) pixels of mask, true or predicted, in each
    """
    held = places[areas > 0] if (areas > 0).any() else places
    steps = np.linspace(0, len(held) - 1, min(limit, len(held))).round().astype(int)
    chosen = held[steps]
    if peak in held:
        chosen[np.abs(chosen - peak).argmin()] = peak
    return chosen


def on_scan_grid(
    images: np.ndarray, height: int, width: int, fit: str
) -> tuple[np.ndarray, np.ndarray]:
    """Prepared slices on the scan's own grid, as `inference.to_native` puts probabilities there:
    (n, C, S, S) -> (n, C, height, width) float32 and where the brain is, (n, height, width) bool.

    Outside the brain slices hold 0, which is no dark value after z-scoring: resampling has mixed it
    into the outermost pixels. Those are left out, and the values next to them continued outwards.
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
            spread = _continued(values[number, channel], core)
            native[number, channel] = cv2.resize(spread, (width, height))
    return native, within


def to_grey(images: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """(n, C, Y, X) float -> uint8: each modality from the 0.5th to the 99.5th percentile of its
    voxels in `brain`, (n, Y, X) bool; everything else is black."""
    grey = np.zeros(images.shape, np.uint8)
    if not brain.any():
        return grey
    for channel in range(images.shape[1]):
        values = images[:, channel][brain]
        low, high = np.percentile(values, PERCENTILES)
        # Above 0, so that the darkest tissue can be told from outside the head.
        scaled = 1 + 254 * (values - low) / max(float(high - low), 1e-6)
        grey[:, channel][brain] = np.clip(scaled, 1, 255).round()
    return grey


def box_of(shown: np.ndarray, margin: int = 2) -> tuple[slice, slice]:
    """Rows and columns that hold all of `shown`, (..., Y, X), and a margin around it; the whole
    where nothing is shown."""
    height, width = shown.shape[-2:]
    flat = np.logical_or.reduce(shown.reshape(-1, height, width).astype(bool), axis=0)
    sides = []
    for held, size in ((flat.any(axis=1), height), (flat.any(axis=0), width)):
        places = np.flatnonzero(held)
        first, last = (int(places[0]), int(places[-1])) if places.size else (0, size - 1)
        sides.append(slice(max(first - margin, 0), min(last + margin + 1, size)))
    return sides[0], sides[1]


def _continued(values: np.ndarray, core: np.ndarray) -> np.ndarray:
    """`values` with each pixel that touches `core` from outside set to the mean of what it touches
    there."""
    kernel = np.ones((3, 3), np.float32)
    total = cv2.filter2D(values * core, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    count = cv2.filter2D(core.astype(np.float32), -1, kernel, borderType=cv2.BORDER_CONSTANT)
    return np.where(core > 0, values, total / np.maximum(count, 1))
