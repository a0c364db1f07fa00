"""Connected components of masks, and dropping those below a size."""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
from numpy.typing import NDArray

from brats_cache.imaging.bounding_box import bounding_box

__all__ = ["Labels", "Mask", "component_curves", "drop_small", "label_components"]

Labels = NDArray[np.unsignedinteger]
Mask = NDArray[np.bool_]


def label_components(mask: Mask) -> tuple[Labels, int]:
    """Labels the 26-connected components of a (Z, Y, X) bool mask.

    Returns:
        (Z, Y, X) unsigned integers, 0 for background and components from 1, and their number.
    """
    # cc3d 4.1 reserves too few labels for a volume that is one voxel thick: a row of three with
    # the middle one empty makes it fail. 3.12 loses the shape of an empty one.
    padded = np.pad(mask, [(0, max(2 - length, 0)) for length in mask.shape])
    labels, num_labels = cc3d.connected_components(padded, connectivity=26, return_N=True)
    whole: Labels = labels[tuple(slice(length) for length in mask.shape)]
    return whole, int(num_labels)


def drop_small(mask: Mask, min_voxels: int, min_share: float = 0.0) -> Mask:
    """Drops the small 26-connected components of a (Z, Y, X) bool mask.

    Args:
        mask: (Z, Y, X) bool.
        min_voxels: Voxels of the smallest component that is kept.
        min_share: Its size as a share of the largest component.
    """
    if (min_voxels < 2 and not min_share) or not mask.any():
        return mask
    box = bounding_box(mask)
    components, _ = label_components(mask[box])
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    is_kept = sizes >= max(1, min_voxels, min_share * sizes.max())
    kept = np.zeros_like(mask)
    kept[box] = is_kept[components]
    return kept


def component_curves(
    prediction: Mask, truth: Mask, candidates: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores `drop_small(prediction, 0, share)` for each candidate share.

    Args:
        prediction: (Z, Y, X) bool.
        truth: (Z, Y, X) bool.
        candidates: Sizes of components as shares of the largest.

    Returns:
        (candidates,) Dice, 1 for two empty masks, and (candidates,) voxels that are left.
    """
    num_true = np.count_nonzero(truth)
    box = bounding_box(prediction)
    components, _ = label_components(prediction[box])
    sizes = np.bincount(components.ravel(), minlength=1)
    overlaps = np.bincount(components[truth[box]], minlength=len(sizes))
    sizes[0] = overlaps[0] = 0
    scores, voxels = [], []
    for candidate in candidates:
        is_kept = sizes >= max(1, candidate * sizes.max())
        kept = int(sizes[is_kept].sum())
        both = kept + num_true
        scores.append(2 * int(overlaps[is_kept].sum()) / both if both else 1.0)
        voxels.append(kept)
    return np.array(scores), np.array(voxels)
