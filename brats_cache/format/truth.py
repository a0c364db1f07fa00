"""The true mask of a cached case on its scan's own grid."""

from __future__ import annotations

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import canonical_table
from brats_cache.imaging.nifti import read_contents, read_labels
from brats_cache.imaging.nifti_header import read_header
from brats_cache.imaging.orientation import Orientation
from brats_cache.imaging.preprocess import restore_masks

__all__ = ["true_labels"]


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
    if max(height, width) <= cache.shape[-1]:
        masks = np.array(cache.masks[rows])[:, 0]
        labels[z_indices] = restore_masks(masks, height, width, cache.preparation.fit)
    else:
        why = (
            f"slices of {record['native_shape'][0]} x {record['native_shape'][1]} do not fit in "
            f"{cache.shape[-1]} pixels"
        )
        labels[z_indices] = _from_source(cache, case, why)[z_indices]
    if whole and np.count_nonzero(labels) < record["native_voxel_counts"][1:].sum():
        return _from_source(cache, case, "the cache lacks slices with labels")
    return labels


def _from_source(cache: Cache, case: int, why: str) -> np.ndarray:
    """(Z, Y, X) uint8 canonical labels, read from the source mask."""
    record = cache.cases[case]
    path = cache.data_dirs[record["data_dir"]] / record["source_name"][-1].decode()
    why += ", so the truth is read from the scans"
    if not path.is_file():
        raise BratsError(
            f"{record['id'].decode()}: {path} is gone, but {why}. Put it back, or build the cache "
            "with a --size and --slices that hold what is needed."
        )
    contents = read_contents(read_header(path))
    if contents.checksum != record["source_checksum"][-1]:
        raise BratsError(
            f"{record['id'].decode()}: {path} has changed since the cache was built, but {why}. "
            "Build the cache again."
        )
    return canonical_table(cache.scheme(case))[read_labels(contents)]
