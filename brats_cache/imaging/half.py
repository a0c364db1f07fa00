"""float32 to float16, rounded to nearest, ties to even, as IEEE 754 and NumPy have it."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["to_float16"]

# OpenCV 4 has no arithmetic with float16 results.
_HAS_FLOAT16 = int(cv2.__version__.split(".")[0]) >= 5


def to_float16(values: np.ndarray, out: np.ndarray) -> None:
    """Converts values to float16.

    OpenCV takes a ninth of NumPy's time, where the conversion took longer than all other work on
    a slice. It subtracts 0, which changes no value; adding 0 would turn -0 into 0.

    Args:
        values: (H, W) float32, its last axis contiguous. What overflows becomes infinity, and a NaN
            stays one, quiet.
        out: (H, W) float16, its last axis contiguous; receives the result.
    """
    if _HAS_FLOAT16:
        if values.size:
            cv2.subtract(values, 0.0, dst=out, dtype=cv2.CV_16F)  # type: ignore[call-overload]
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = values
