"""Post-processing: from probabilities to region masks and labels on the scan's own grid.

Everything here is numpy, so that the processes that score cases start without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from brats_cache.imaging.labels import Scheme, source_table
from brats_train.inference.components import drop_small
from brats_train.models.postprocessing import Postprocessing

__all__ = ["entropy", "label_volume", "mask_warnings", "regions_of", "source_labels"]

NESTED = ("wt", "tc", "et")  # each within the one before
NO_TUMOUR = "an empty mask, no tumour was found"


def regions_of(
    probabilities: np.ndarray,
    regions: Sequence[str],
    z_indices: np.ndarray,
    depth: int,
    postprocessing: Postprocessing,
) -> np.ndarray:
    """Makes the mask of each region: threshold, regions nested, small components dropped, and
    regions that are too small left empty.

    A voxel of ET is one of TC, and one of TC is one of WT, as in the labels that are written; so
    what is scored is what is written. What is dropped of a region is dropped of those within it. A
    probability of 0, as it is outside the brain, is background whatever the threshold; so is a
    slice that no row stands for.

    Args:
        probabilities: (n, K, Y, X) float32, 0 to 1.
        regions: The K regions.
        z_indices: (n,) z of each row.
        depth: Z, number of slices of the scan.
        postprocessing: The rules.

    Returns:
        (K, Z, Y, X) bool.
    """
    _, num_regions, height, width = probabilities.shape
    masks = np.zeros((num_regions, depth, height, width), bool)
    rules = [postprocessing.rule(region) for region in regions]
    for channel, (mask, rule) in enumerate(zip(masks, rules, strict=True)):
        found = probabilities[:, channel]
        mask[z_indices] = (found >= rule.threshold) & (found > 0)
    channels = [regions.index(region) for region in NESTED if region in regions]
    for inner, outer in pairwise(reversed(channels)):
        masks[outer] |= masks[inner]
    whole = None
    for channel in channels:
        if whole is not None:
            masks[channel] &= whole
        rule = rules[channel]
        whole = drop_small(masks[channel], rule.min_component_voxels, rule.min_component_share)
        masks[channel] = whole
    for mask, rule in zip(masks, rules, strict=True):
        if rule.min_voxels and np.count_nonzero(mask) < rule.min_voxels:
            mask[:] = False
    return masks


def mask_warnings(is_in_region: np.ndarray) -> tuple[str, ...]:
    """Warnings about the masks of a case, (K, Z, Y, X) bool: that nothing is in any of them."""
    return () if is_in_region.any() else (NO_TUMOUR,)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """The uncertainty of each voxel: the entropy of its probability in bits (Shannon 1948).

    -p log2 p - (1 - p) log2 (1 - p): 0 where p is 0 or 1, 1 where it is 1/2. Of a mean over
    networks and flips it holds both how much they differ and how unsure each is (Wang et al. 2019).

    Args:
        probabilities: float32 in [0, 1], any shape.

    Returns:
        float32 of that shape, 0 to 1.
    """
    bits = np.zeros_like(probabilities)
    unsure = (probabilities > 0) & (probabilities < 1)
    p = probabilities[unsure].astype(np.float64)
    bits[unsure] = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    return bits


def label_volume(is_in_region: np.ndarray, regions: Sequence[str]) -> np.ndarray:
    """Makes canonical labels of region masks: each voxel takes the innermost region it is in.

    Args:
        is_in_region: (K, Z, Y, X) bool.
        regions: The K regions.

    Returns:
        (Z, Y, X) uint8: ET 3, else TC 1, else WT 2, else 0.
    """
    labels = np.zeros(is_in_region.shape[1:], np.uint8)
    for region, label in (("wt", 2), ("tc", 1), ("et", 3)):
        if region in regions:
            labels[is_in_region[list(regions).index(region)]] = label
    return labels


def source_labels(is_in_region: np.ndarray, regions: Sequence[str], scheme: Scheme) -> np.ndarray:
    """Makes labels of region masks in the values of a label scheme.

    Args:
        is_in_region: (K, Z, Y, X) bool.
        regions: The K regions.
        scheme: Whose values to use; the whole tumour alone is 1 in any.

    Returns:
        (Z, Y, X) uint8.
    """
    if tuple(regions) == ("wt",):
        return is_in_region[0].astype(np.uint8)
    return source_table(scheme)[label_volume(is_in_region, regions)]
