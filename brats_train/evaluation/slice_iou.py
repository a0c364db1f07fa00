"""IoU of single slices, the same in the training loop and in `eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["slice_ious"]

Masks = TypeVar("Masks", np.ndarray, "Tensor")


def slice_ious(predicted: Masks, target: Masks) -> Masks:
    """Computes |P and T| / |P or T| of each slice; an empty prediction of an empty truth counts 1.

    Pixels are counted in integers, so that equal masks give equal bits wherever they are. Of
    tensors no value is read, so that the host does not wait for their device.

    Args:
        predicted: (..., H, W) bool, an array or a tensor.
        target: Likewise, of the same shape.

    Returns:
        (...) float64, 0 to 1, an array or a tensor as the arguments are.

    >>> import numpy as np
    >>> truth = np.array([[[True, True]], [[False, False]]])
    >>> slice_ious(np.array([[[True, False]], [[False, False]]]), truth)
    array([0.5, 1. ])
    """
    overlap: Any = (predicted & target).sum((-2, -1))
    union: Any = (predicted | target).sum((-2, -1))
    if not isinstance(predicted, np.ndarray):
        overlap = overlap.double()  # of integers a quotient would be float32
    is_empty = union == 0
    ious: Masks = (overlap + is_empty) / (union + is_empty)
    return ious
