"""A rule against specks: connected components of a predicted region below a size are dropped."""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
from numpy.typing import NDArray

from .surface import Mask, bounding_box

__all__ = ["dice_by_min_voxels", "drop_small"]


def drop_small(mask: Mask, min_voxels: int) -> Mask:
    """`mask` (Z, Y, X) bool without its 26-connected components of fewer than `min_voxels`."""
    if min_voxels < 2 or not mask.any():
        return mask
    box = bounding_box(mask)
    components = _components(mask[box])
    is_kept = np.bincount(components.ravel()) >= min_voxels
    is_kept[0] = False
    kept = np.zeros_like(mask)
    kept[box] = is_kept[components]
    return kept


def dice_by_min_voxels(
    prediction: Mask, truth: Mask, candidates: Sequence[int]
) -> NDArray[np.float64]:
    """Dice of `drop_small(prediction, n)` for each candidate n: (candidates,) float64. Two empty
    masks have Dice 1."""
    components = _components(prediction)
    sizes = np.bincount(components.ravel())
    overlaps = np.bincount(components[truth], minlength=len(sizes))
    sizes[0] = overlaps[0] = 0
    num_true = np.count_nonzero(truth)
    scores = []
    for candidate in candidates:
        is_kept = sizes >= max(candidate, 1)
        both = int(sizes[is_kept].sum()) + num_true
        scores.append(2 * int(overlaps[is_kept].sum()) / both if both else 1.0)
    return np.array(scores)


def _components(mask: Mask) -> NDArray[np.unsignedinteger]:
    labels: NDArray[np.unsignedinteger] = cc3d.connected_components(
        np.ascontiguousarray(mask), connectivity=26
    )
    return labels
