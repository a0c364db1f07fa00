"""The true mask of a cached case on its scan's own grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import canonical_table
from brats_cache.imaging.nifti import read_contents, read_labels
from brats_cache.imaging.nifti_header import read_header
from brats_cache.imaging.orientation import Orientation
from brats_cache.imaging.preprocess import restore_masks

__all__ = ["check_truth", "true_labels"]


def true_labels(cache: Cache, case: int, whole: bool = False) -> np.ndarray:
    """Returns the true labels of a case on the grid of its scan.

    Where the slices were not made smaller the cached masks give them back exactly; else, or where
    labels of other slices are asked for, the source mask is read again.

    Args:
        cache: The cache.
        case: Number of the case in it.
        whole: Whether slices that are not in the cache hold the labels of the source instead of
            background.

    Returns:
        (Z, Y, X) uint8 canonical labels.

    Raises:
        BratsError: The source mask is needed and gone, or has changed.
    """
    record = cache.cases[case]
    permutation = Orientation.of(record["affine"]).permutation
    depth, height, width = (int(record["native_shape"][axis]) for axis in permutation)
    rows = cache.row_slice(case)
    z_indices = cache.slices["z"][rows]
    labels = np.zeros((depth, height, width), np.uint8)
    if not _is_made_smaller(cache, case):
        masks = np.array(cache.masks[rows])[:, 0]
        labels[z_indices] = restore_masks(masks, height, width, cache.preparation.fit)
    else:
        labels[z_indices] = _from_source(cache, case, _too_small(cache, case))[z_indices]
    if whole and np.count_nonzero(labels) < record["native_voxel_counts"][1:].sum():
        return _from_source(cache, case, "the cache lacks slices with labels")
    return labels


def check_truth(cache: Cache, case: int) -> None:
    """Checks that `true_labels` has what it needs, without reading a mask.

    Raises:
        BratsError: The source mask is needed and gone.
    """
    if _is_made_smaller(cache, case):
        _source(cache, case, _too_small(cache, case))


def _is_made_smaller(cache: Cache, case: int) -> bool:
    record = cache.cases[case]
    permutation = Orientation.of(record["affine"]).permutation
    return max(record["native_shape"][axis] for axis in permutation[1:]) > cache.shape[-1]


def _too_small(cache: Cache, case: int) -> str:
    shape = cache.cases["native_shape"][case]
    return f"slices of {shape[0]} x {shape[1]} do not fit in {cache.shape[-1]} pixels"


def _source(cache: Cache, case: int, why: str) -> Path:
    """The source mask, which is there."""
    record = cache.cases[case]
    path = cache.source_path(case, record["source_name"][-1].decode())
    if not path.is_file():
        raise BratsError(
            f"{record['id'].decode()}: {path.absolute()} is gone, but {why}, so the truth is read "
            "from the scans. Put it back, or build the cache with a --size and --slices that hold "
            "what is needed."
        )
    return path


def _from_source(cache: Cache, case: int, why: str) -> np.ndarray:
    """(Z, Y, X) uint8 canonical labels, read from the source mask."""
    record, path = cache.cases[case], _source(cache, case, why)
    contents = read_contents(read_header(path))
    if contents.checksum != record["source_checksum"][-1]:
        raise BratsError(
            f"{record['id'].decode()}: {path} has changed since the cache was built, but {why}, so "
            "the truth is read from the scans. Build the cache again."
        )
    return canonical_table(cache.scheme(case))[read_labels(contents)]
