"""Context: a slice together with its neighbours along z, their channels stacked (2.5-D).

A model of context k takes the slices z - k, ..., z + k of a case at once, and predicts slice z. The
channels of a sample are ordered by slice, then by modality. A neighbour that is not there, beyond
the end of a scan or not in the cache, is the slice itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brats_cache.format.reader import Cache
from brats_train.data.selection import RowSet

__all__ = ["neighbor_positions", "neighbor_rows", "num_slices", "with_neighbors"]


def num_slices(context: int) -> int:
    """The slices that a sample of a model of context `context` consists of."""
    return 2 * context + 1


def neighbor_positions(z: np.ndarray, context: int) -> np.ndarray:
    """Finds the neighbours of each slice of one case.

    Args:
        z: (n,) integers, strictly ascending.
        context: k, neighbours on each side.

    Returns:
        (n, 2k + 1) int64 positions in `z`, of the slices z - k to z + k.

    >>> neighbor_positions(np.array([4, 5, 7]), 1).tolist()
    [[0, 0, 1], [0, 1, 1], [2, 2, 2]]
    """
    wanted = z[:, None] + np.arange(-context, context + 1)
    found = np.searchsorted(z, wanted).clip(max=max(0, len(z) - 1))
    return np.where(z[found] == wanted, found, np.arange(len(z))[:, None])


def neighbor_rows(caches: Sequence[Cache], rows: RowSet, context: int) -> np.ndarray:
    """Finds the neighbours of selected rows, whether or not they are selected themselves.

    Args:
        caches: The caches that `rows` refers to.
        rows: The selected rows, n of them.
        context: k, neighbours on each side.

    Returns:
        (n, 2k + 1) int64 rows of the cache file that holds the selected row.
    """
    stacks = np.empty((len(rows), num_slices(context)), np.int64)
    for number, cache in enumerate(caches):
        here = rows.cache == number
        # A case's rows are contiguous and ascending in z, so that one number orders all of a file.
        order = (cache.slices["case"].astype(np.int64) << 32) + cache.slices["z"]
        stacks[here] = neighbor_positions(order, context)[rows.row[here]]
    return stacks


def with_neighbors(
    caches: Sequence[Cache], rows: RowSet, context: int
) -> tuple[RowSet, np.ndarray]:
    """Adds the neighbours of the selected rows to a selection.

    Args:
        caches: The caches that `rows` refers to.
        rows: The selected rows, n of them.
        context: k, neighbours on each side.

    Returns:
        The rows with their neighbours, each once; and (n, 2k + 1) int64 positions in them.
    """
    stacks = neighbor_rows(caches, rows, context)
    # Caches and rows both fit 32 bits, so that one number tells a row of any cache.
    keys, positions = np.unique((rows.cache[:, None] << 32) + stacks, return_inverse=True)
    return RowSet(cache=keys >> 32, row=keys & 0xFFFFFFFF), positions.reshape(stacks.shape)
