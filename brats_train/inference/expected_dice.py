"""The Dice that a mask can be expected to have, estimated without its truth.

docs/expected-dice.md describes it. Everything here is numpy, so that the processes that score cases
start without torch.
"""

from __future__ import annotations

import numpy as np

__all__ = ["agreement_of", "expected_dice"]


def agreement_of(overlaps: np.ndarray) -> np.ndarray:
    """How far the members of a model agree: the mean Dice of each two of their masks.

    A member is a network with a flip: three networks averaged over four flips have twelve. (Roy et
    al. 2019, of samples with dropout.)

    Args:
        overlaps: (K, M, M) int64, for each region the voxels that two members' masks share; on the
            diagonal the voxels of each.

    Returns:
        (K,) float64, 0 to 1; 1 of a single member, and of two empty masks.
    """
    first, other = np.triu_indices(overlaps.shape[1], 1)
    if not len(first):
        return np.ones(len(overlaps))
    sizes = np.diagonal(overlaps, axis1=1, axis2=2)
    total = sizes[:, first] + sizes[:, other]
    dice = np.where(total, 2 * overlaps[:, first, other] / np.maximum(total, 1), 1.0)
    mean: np.ndarray = dice.mean(axis=1)
    return mean


def expected_dice(
    probabilities: np.ndarray, masks: np.ndarray, agreement: np.ndarray
) -> np.ndarray:
    """The expected Dice of the mask of each region.

    It is the agreement of the members times how sure they are together: the mean probability
    within the mask, which is the share of it that is expected to be true; of an empty mask 1 less
    the highest probability.

    Args:
        probabilities: (n, K, Y, X) float32, the mean of the members, 0 outside the brain.
        masks: (K, n, Y, X) bool, the final masks of the same slices.
        agreement: (K,) of `agreement_of`.

    Returns:
        (K,) float64, 0 to 1.
    """
    sureness = np.empty(len(masks))
    for channel, mask in enumerate(masks):
        values = probabilities[:, channel]
        if mask.any():
            sureness[channel] = values[mask].mean(dtype=np.float64)
        else:
            sureness[channel] = 1 - float(values.max(initial=0.0))
    return sureness * agreement
