"""The smallest box around what is not zero."""

from __future__ import annotations

import numpy as np

__all__ = ["bounding_box"]


def bounding_box(values: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """Finds the smallest box around all elements that are not zero.

    Args:
        values: An array of any type and number of axes.
        margin: Elements by which the box is wider on each side, within the array.

    Returns:
        A slice along each axis, which together index the box; empty ones where all is zero.

    >>> bounding_box(np.array([[0, 0, 0], [0, 1, 1]]))
    (slice(1, 2, None), slice(1, 3, None))
    """
    box = []
    for axis in range(values.ndim):
        others = tuple(other for other in range(values.ndim) if other != axis)
        indices = np.flatnonzero(values.any(axis=others))
        if not indices.size:
            return (slice(0, 0),) * values.ndim
        first, last = int(indices[0]), int(indices[-1])
        box.append(slice(max(first - margin, 0), min(last + 1 + margin, values.shape[axis])))
    return tuple(box)
