"""How sure a mean over cases is: bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["bootstrap_interval"]

# Draws made at a time: 32 MiB of indices, whatever the number of cases.
_DRAWS_AT_ONCE = 1 << 22


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.floating],
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of `values` (Efron 1979): (low, high).

    values  one number a case; NaN is left out, as it is of the mean it belongs to

    Cases are drawn with replacement `num_resamples` times; the interval holds the middle `level` of
    the resampled means. A pure function of the values as a set and of the seed: their order does
    not matter. Without a value both ends are NaN. Raises ValueError for an infinite value, a level
    outside (0, 1) or no resamples.
    """
    if not 0 < level < 1 or num_resamples < 1:
        raise ValueError(f"level {level} is not in (0, 1) or num_resamples {num_resamples} < 1")
    known = np.asarray(values, np.float64)
    known = np.sort(known[~np.isnan(known)])
    if np.isinf(known).any():
        raise ValueError("an infinite value has no place in a mean")
    if not known.size:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    rows = max(_DRAWS_AT_ONCE // known.size, 1)
    means = np.concatenate(
        [
            known[
                generator.integers(known.size, size=(min(rows, num_resamples - at), known.size))
            ].mean(axis=1)
            for at in range(0, num_resamples, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
