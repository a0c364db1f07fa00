"""Pixel counts on the device for the training loop: exact integers, and no wait for the device.

Counts add up over batches and ranks without rounding; a ratio is taken once, at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["iou_from_counts", "overlap_counts"]


def overlap_counts(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels in both masks, in the prediction and in the target, each (B, K) int64 on the device.

    predicted  (B, K, H, W) bool
    target     (B, K, H, W) bool, or uint8 holding 0 and 1
    """
    target = target.bool()
    return (
        (predicted & target).sum(dim=(2, 3), dtype=torch.int64),
        predicted.sum(dim=(2, 3), dtype=torch.int64),
        target.sum(dim=(2, 3), dtype=torch.int64),
    )


def iou_from_counts(intersection: Tensor, predicted: Tensor, target: Tensor) -> Tensor:
    """IoU of each entry, float64 in the counts' shape; an empty prediction of an empty target
    counts 1."""
    union = predicted + target - intersection
    return torch.where(union == 0, 1.0, intersection.double() / union.clamp(min=1))
