"""Training targets: one binary channel for each region."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from brats_cache.imaging.labels import REGIONS

__all__ = ["region_targets"]


def region_targets(masks: Tensor, regions: Sequence[str]) -> Tensor:
    """Turns canonical labels into one binary channel for each region.

    Args:
        masks: (B, 1, H, W) uint8 canonical labels.
        regions: K of "wt", "tc" and "et", see `brats_cache.imaging.labels.REGIONS`.

    Returns:
        (B, K, H, W) bool, True inside the region.
    """
    channels = []
    for region in regions:
        first, *others = sorted(REGIONS[region])
        channel = masks == first
        for label in others:
            channel |= masks == label
        channels.append(channel)
    return torch.cat(channels, dim=1)
