"""Bootstrap confidence intervals over cases, of a mean or another score, with patients as units."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_PATIENTS", "bootstrap_interval", "score_with_interval"]

MIN_PATIENTS = 5  # an interval from fewer promises a certainty that nobody has

NUM_RESAMPLES = 2000  # of a score, which is computed anew for each
_DRAWS_PER_BATCH = 1 << 22  # 32 MiB of indices, whatever the number of patients


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.floating],
    patients: Sequence[str] | None = None,
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Computes the percentile bootstrap interval of the mean of `values` (Efron 1979).

    Patients are drawn with replacement, each with all of its cases, and the mean is taken over the
    cases drawn: the cases of one patient are alike, and drawn one by one they would make the
    interval too narrow (Davison and Hinkley 1997, section 3.8).

    Args:
        values: One number a case; NaN is left out, as it is of the mean it belongs to.
        patients: The patient of each case; None where every case is a patient of its own.
        num_resamples: How often patients are drawn.
        seed: Decides the draws.
        level: Share of the resampled means that lies inside the interval, in (0, 1).

    Returns:
        The lower and the upper end, which do not depend on the order of the cases. Both are NaN
        without a value; both are the mean where all cases are one patient's.

    Raises:
        ValueError: An infinite value, a level outside (0, 1), or no resamples.
    """
    from scipy import stats  # takes a second to import, and is needed last

    if not 0 < level < 1 or num_resamples < 1:
        raise ValueError(f"level {level} is not in (0, 1) or num_resamples {num_resamples} < 1")
    by_patient: dict[object, list[float]] = defaultdict(list)
    units = range(len(values)) if patients is None else patients
    for unit, value in zip(units, values, strict=True):
        if math.isinf(value):
            raise ValueError("an infinite value has no place in a mean")
        if not math.isnan(value):
            by_patient[unit].append(float(value))
    if not by_patient:
        return math.nan, math.nan
    # Sorted, and with exactly rounded sums, so that the order of the cases does not matter.
    sums, counts = np.array(
        sorted((math.fsum(cases), len(cases)) for cases in by_patient.values())
    ).T
    if len(sums) == 1:
        return float(sums[0] / counts[0]), float(sums[0] / counts[0])
    interval = stats.bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        n_resamples=num_resamples,
        batch=max(_DRAWS_PER_BATCH // len(sums), 1),
        vectorized=True,
        paired=True,
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def score_with_interval(
    score: Callable[..., float], patients: np.ndarray, *columns: np.ndarray
) -> dict[str, float]:
    """Computes a score of cases and its 95 % percentile bootstrap interval over patients.

    Args:
        score: Of the columns; NaN where it is not defined. Such resamples are dropped.
        patients: (n,) the patient of each case.
        *columns: (n, ...) arrays, the cases along the first axis.

    Returns:
        `value`, `low` and `high`; the interval is NaN for fewer than `MIN_PATIENTS` patients.
    """
    value = score(*columns)
    names, units = np.unique(patients, return_inverse=True)
    if len(names) < MIN_PATIENTS or math.isnan(value):
        return {"value": value, "low": math.nan, "high": math.nan}
    members = [np.flatnonzero(units == unit) for unit in range(len(names))]
    rng = np.random.default_rng(0)
    values = []
    for _ in range(NUM_RESAMPLES):
        drawn = np.concatenate(
            [members[unit] for unit in rng.integers(len(names), size=len(names))]
        )
        values.append(score(*(column[drawn] for column in columns)))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}
