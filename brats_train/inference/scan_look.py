"""Measuring how a scan looks, on its prepared slices: in training and in prediction alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brats_cache.format.reader import Cache
from brats_cache.imaging.grid import Grid
from brats_train.data.channels import place_channels
from brats_train.data.selection import RowSet
from brats_train.models.looks import MAX_LOOKS, PERCENTILES, ScanLook

__all__ = ["look_of", "looks_of_rows"]

_NUM_SLICES = 9
_SPAN = 0.25  # of the field of view along Z, in which these slices lie
# Of the axes of the ellipse that fills the box around the head: brain, neither skin nor skull.
_CORE = 0.6
_NUM_PIXELS = 128  # about, along each axis


def look_of(images: np.ndarray, z_indices: np.ndarray, grid: Grid) -> ScanLook:
    """Measures how a scan looks in the middle, which every rule of slices holds.

    Values are standardised in the middle of the head, so that neither skin nor air counts there,
    and numbers are rounded to four digits.

    Args:
        images: (n, C, S, S) float16, as `prepare_images` makes them, the modalities that it has.
        z_indices: (n,) z of each, at least one.
        grid: The scan's grid.
    """
    depth = grid.canonical_shape[0]
    step = max(1, images.shape[-1] // _NUM_PIXELS)
    middle = _middle_slices(z_indices, depth)
    pixels = images[middle][..., step // 2 :: step, step // 2 :: step].astype(np.float32)
    inside = (pixels != 0).any(axis=1)
    inside |= not inside.any()
    core = inside & _ellipse(inside.any(axis=0))
    if not core.any():  # a brain with a hole there
        core = inside
    values = pixels.swapaxes(0, 1)[:, core].astype(np.float64)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.maximum(values.std(axis=1, keepdims=True), 1e-6)
    pairs = np.triu_indices(len(values), 1)
    correlations = (values @ values.T / max(values.shape[1], 1))[pairs]
    spacing = grid.spacing_mm
    return ScanLook(
        spacing_mm=_rounded(spacing),
        field_mm=_rounded(np.multiply(grid.canonical_shape, spacing)),
        brain_share=_rounded([inside.mean()])[0],
        percentiles=tuple(map(_rounded, np.percentile(values, PERCENTILES, axis=1).T)),
        correlations=_rounded(correlations),
    )


def looks_of_rows(
    caches: Sequence[Cache], rows: RowSet, modalities: Sequence[str]
) -> tuple[ScanLook, ...]:
    """Measures how the cases look that rows are of: up to `MAX_LOOKS` of them, evenly chosen.

    Args:
        caches: One or several caches; cases of those that lack a modality are left out.
        rows: The rows that a model is trained on.
        modalities: The channels of the model.
    """
    cases = [
        (cache, int(case))
        for number, cache in enumerate(caches)
        if set(cache.preparation.modalities) == set(modalities)
        for case in np.unique(cache.slices["case"][rows.row[rows.cache == number]])
    ]
    chosen = np.linspace(0, len(cases) - 1, min(len(cases), MAX_LOOKS)).round().astype(int)
    return tuple(_look_of_case(*cases[int(index)], modalities) for index in chosen)


def _look_of_case(cache: Cache, case: int, modalities: Sequence[str]) -> ScanLook:
    rows = cache.row_slice(case)
    z_indices = np.asarray(cache.slices["z"][rows])
    middle = _middle_slices(z_indices, cache.depth(case))
    images = place_channels(
        np.asarray(cache.images[rows][middle]), cache.preparation.modalities, modalities
    )
    return look_of(images, z_indices[middle], cache.grid(case))


def _middle_slices(z_indices: np.ndarray, depth: int) -> np.ndarray:
    """Positions in `z_indices` of slices in the middle; of the one nearest where there are none."""
    wanted = depth // 2 + np.linspace(-_SPAN / 2, _SPAN / 2, _NUM_SLICES) * depth
    found = np.flatnonzero(np.isin(z_indices, wanted.round().astype(int)))
    return found if found.size else np.array([np.abs(z_indices - depth // 2).argmin()])


def _ellipse(head: np.ndarray) -> np.ndarray:
    """(S, S) bool: the ellipse in the middle of the box around the True pixels, at least one."""
    squared = np.zeros(head.shape)
    for axis, shape in ((1, (-1, 1)), (0, (1, -1))):
        held = np.flatnonzero(head.any(axis=axis))
        center, half = (held[0] + held[-1]) / 2, (held[-1] - held[0] + 1) / 2
        squared = squared + ((np.arange(len(head)).reshape(shape) - center) / half / _CORE) ** 2
    return squared <= 1


def _rounded(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)
