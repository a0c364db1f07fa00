"""From the classes of slices to the class of a case."""

from __future__ import annotations

import numpy as np

__all__ = ["pool_slices"]


def pool_slices(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pools the classes of slices by noisy-or (Pearl 1988, section 4.3.2).

    A slice that shows a class is evidence for it, however many others do not:
    q_k = 1 - prod_s (1 - p_sk) ** w_s, then scaled to a sum of 1. The weights, the slices' shares
    of the tumour, sum to 1; without them a hundred slices would give every class a q of 1.

    Args:
        probabilities: (n, L) of each slice and class, rows sum to 1.
        weights: (n,) not negative, such as the tumour's pixels in each slice; if all are 0, all
            slices count alike.

    Returns:
        (L,) float64 that sum to 1; all alike without a slice; empty without labels.

    >>> pool_slices(np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([1.0, 0.0])).round(3).tolist()
    [0.9, 0.1]
    """
    num_classes = probabilities.shape[1]
    if not num_classes:
        return np.zeros(0)
    if not len(probabilities):
        return np.full(num_classes, 1 / num_classes)
    shares = (
        weights / weights.sum() if weights.sum() > 0 else np.full(len(weights), 1 / len(weights))
    )
    # At most 1 - 1e-7: a slice that is sure would else make the logarithm infinite.
    refused = np.log1p(-np.minimum(probabilities.astype(np.float64), 1 - 1e-7))
    pooled = -np.expm1(shares @ refused)
    total = pooled.sum()
    return pooled / total if total > 0 else np.full(num_classes, 1 / num_classes)
