"""The true mask of a cached case on its scan's own grid."""

from __future__ import annotations

import numpy as np

from .errors import BratsError
from .labels import canonical_table
from .nifti import Orientation, read_contents, read_header, read_labels
from .preprocess import restore_masks
from .store import Cache

__all__ = ["true_labels"]


def true_labels(cache: Cache, case: int) -> np.ndarray:
    """(Z, Y, X) uint8 canonical labels of case number `case`, background in slices that are not in
    the cache.

    Where the slices were not made smaller the cached masks give it back exactly; else the source is
    read again. Raises `BratsError` where that is gone or has changed.
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
        labels[places] = _from_source(cache, case)[places]
    return labels


def _from_source(cache: Cache, case: int) -> np.ndarray:
    record = cache.cases[case]
    path = cache.data_dirs[record["data_dir"]] / record["source_name"][-1].decode()
    why = (
        f"slices of {record['native_shape'][0]} x {record['native_shape'][1]} do not fit in "
        f"{cache.shape[-1]} pixels, so the truth is read from the scans"
    )
    if not path.is_file():
        raise BratsError(
            f"{record['id'].decode()}: {path} is gone, but {why}. Put it back, or build the cache "
            "with a --size that holds the slices."
        )
    contents = read_contents(read_header(path))
    if contents.checksum != record["source_checksum"][-1]:
        raise BratsError(
            f"{record['id'].decode()}: {path} has changed since the cache was built, but {why}. "
            "Build the cache again."
        )
    return canonical_table(cache.scheme(case))[read_labels(contents)]
