"""The true mask of a cached case on its scan's own grid."""

from __future__ import annotations

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import canonical_table
from brats_cache.imaging.nifti import read_contents, read_header, read_labels
from brats_cache.imaging.orientation import Orientation
from brats_cache.imaging.preprocess import restore_masks

__all__ = ["true_labels"]


def true_labels(cache: Cache, case: int, whole: bool = False) -> np.ndarray:
    """(Z, Y, X) uint8 canonical labels of case number `case`, background in slices that are not in
    the cache; with `whole`, as the source has them there too.

    Where the slices were not made smaller the cached masks give it back exactly; else, or where
    other slices hold labels that are asked for, the source is read again. Raises `BratsError` where
    that is gone or has changed.
    """
    record = cache.cases[case]
    permutation = Orientation.of(record["affine"]).permutation
    depth, height, width = (int(record["native_shape"][axis]) for axis in permutation)
    rows = slice(int(record["first_row"]), int(record["first_row"] + record["rows"]))
    places = cache.slices["z"][rows]
    labels = np.zeros((depth, height, width), np.uint8)
    if max(height, width) <= cache.shape[-1]:
        masks = np.asarray(cache.masks[rows])[:, 0]
        labels[places] = restore_masks(masks, height, width, cache.preparation.fit)
    else:
        why = (
            f"slices of {record['native_shape'][0]} x {record['native_shape'][1]} do not fit in "
            f"{cache.shape[-1]} pixels"
        )
        labels[places] = _from_source(cache, case, why)[places]
    if whole and np.count_nonzero(labels) < record["native_voxel_counts"][1:].sum():
        return _from_source(cache, case, "the cache lacks slices with labels")
    return labels


def _from_source(cache: Cache, case: int, why: str) -> np.ndarray:
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
