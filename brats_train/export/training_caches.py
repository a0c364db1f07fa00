"""What the caches that a model was trained on give its export: counts, and slices to compare on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache, open_cache
from brats_cache.imaging.preprocess import Preparation
from brats_train.data.selection import Fold, case_splits

__all__ = ["SliceStack", "caches_at_hand", "count_cases", "slices_to_check"]

NUM_CASES, SLICES_A_CASE = 3, 4


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceStack:
    """Prepared slices of one case.

    Attributes:
        images: (n, C, S, S) float16.
        z_indices: (n,) z of each slice, ascending.
        is_real: Whether they are of a scan.
    """

    images: np.ndarray
    z_indices: np.ndarray
    is_real: bool


def caches_at_hand(caches: Sequence[tuple[str, Path | None]]) -> list[Cache]:
    """Opens the caches that are where they were, and as they were.

    Args:
        caches: Fingerprint and path of each.
    """
    found = []
    for fingerprint, path in caches:
        with suppress(BratsError):  # gone, or another by now
            if path and (cache := open_cache(path)).fingerprint == fingerprint:
                found.append(cache)
    return found


def count_cases(caches: Sequence[Cache], fold: Fold) -> dict[str, int]:
    """The number of cases with masks that trained and that validated; see `case_splits`."""
    splits = np.concatenate(
        [case_splits(cache, fold)[cache.cases["has_mask"].astype(bool)] for cache in caches]
    )
    return {split: num for split in ("train", "val") if (num := int((splits == split).sum()))}


def slices_to_check(caches: Sequence[Cache], preparation: Preparation) -> list[SliceStack]:
    """Takes the middle slices of a few cases, or noise where no cache is at hand.

    Args:
        caches: Those that the model was trained on.
        preparation: Of the model.
    """
    for cache in caches:
        if cache.preparation == preparation:
            return _middle_slices(cache)
    shape = (SLICES_A_CASE, len(preparation.modalities), preparation.size, preparation.size)
    noise = np.random.default_rng(0).standard_normal(shape, np.float32).astype(np.float16)
    return [SliceStack(images=noise, z_indices=np.arange(SLICES_A_CASE), is_real=False)]


def _middle_slices(cache: Cache) -> list[SliceStack]:
    """The middle rows of up to three cases, spread over the cache."""
    num_cases = len(cache.cases)
    chosen = np.unique(np.linspace(0, num_cases - 1, NUM_CASES).round().astype(int))
    stacks = []
    for index in chosen.tolist():
        rows = cache.row_slice(index)
        middle = (rows.start + rows.stop) // 2
        part = slice(
            max(rows.start, middle - SLICES_A_CASE // 2),
            min(rows.stop, middle + SLICES_A_CASE // 2),
        )
        stacks.append(
            SliceStack(
                images=np.array(cache.images[part]),
                z_indices=np.array(cache.slices["z"][part]),
                is_real=True,
            )
        )
    return stacks
