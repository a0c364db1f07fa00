"""Connected components, and a rule against specks: those below a size are dropped."""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
from numpy.typing import NDArray

__all__ = ["Labels", "Mask", "bounding_box", "dice_by_min_voxels", "drop_small", "label_components"]

Labels = NDArray[np.unsignedinteger]


def label_components(mask: Mask) -> tuple[Labels, int]:
    """26-connected components of a (Z, Y, X) bool mask, numbered from 1 in an array of its shape,
    and their count."""
    # cc3d 4.1 reserves too few labels for a volume that is one voxel thick: a row of three with
    # the middle one empty makes it fail. 3.12 loses the shape of an empty one.
    padded = np.pad(mask, [(0, max(2 - length, 0)) for length in mask.shape])
    labels, num_labels = cc3d.connected_components(padded, connectivity=26, return_N=True)
    whole: Labels = labels[tuple(slice(length) for length in mask.shape)]
    return whole, int(num_labels)


def drop_small(mask: Mask, min_voxels: int) -> Mask:
    """`mask` (Z, Y, X) bool without its 26-connected components of fewer than `min_voxels`."""
    if min_voxels < 2 or not mask.any():
        return mask
    box = bounding_box(mask)
    components, _ = label_components(mask[box])
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
    components, _ = label_components(prediction)
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


Mask = NDArray[np.bool_]


def bounding_box(mask: Mask, margin: int = 0) -> tuple[slice, slice, slice]:
    """The smallest box around a (Z, Y, X) bool mask, `margin` voxels wider where the volume goes
    on; empty for an empty mask."""
    box = []
    for other_axes in ((1, 2), (0, 2), (0, 1)):
        places = np.flatnonzero(mask.any(axis=other_axes))
        if not places.size:
            return (slice(0),) * 3
        box.append(slice(max(int(places[0]) - margin, 0), int(places[-1]) + 1 + margin))
    return box[0], box[1], box[2]
