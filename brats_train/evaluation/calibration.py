"""Calibration of predicted probabilities, and Dice at every threshold.

Everything is computed from one table of integers a case and region, `(2, 3, num_bins) int64`: for
truth 0 and 1 the number of voxels in each bin of probability, the sum of their probabilities and
the sum of the squares. Integers add up over chunks, cases and ranks exactly and in any order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brats_train.evaluation.metrics import EMPTY_MASKS, EmptyRule

__all__ = [
    "NUM_BINS",
    "Reliability",
    "Table",
    "best_threshold",
    "brier_score",
    "calibration_error",
    "dice_by_threshold",
    "probability_table",
    "reliability",
    "thresholds",
]

Table = NDArray[np.int64]
Floats = NDArray[np.float64]
# Sums are kept in units of 2^-24, the step of a float32 below 1: 2^39 voxels still fit an int64.
_UNIT = 1 << 24
NUM_BINS = 128  # of the tables that are kept of each case
# What stays in a core's cache: 0.07 s for a case of 9 million voxels, 0.25 s in one piece.
_VOXELS_AT_ONCE = 1 << 14


class Reliability(NamedTuple):
    """A reliability diagram.

    Attributes:
        probability: (num_bins,) mean probability, NaN in an empty bin.
        frequency: (num_bins,) share of true voxels, NaN in an empty bin.
        voxels: (num_bins,) number of voxels.
    """

    probability: Floats
    frequency: Floats
    voxels: Table


def probability_table(
    probabilities: NDArray[np.floating], truth: NDArray[np.bool_], num_bins: int = NUM_BINS
) -> Table:
    """Makes the table of one set of voxels.

    Args:
        probabilities: float16, float32 or float64 in [0, 1], any shape.
        truth: bool, of the same shape.
        num_bins: A power of two: p * num_bins is then exact, so that bin k holds exactly the voxels
            with k / num_bins <= p < (k + 1) / num_bins, and 1 falls in the last.

    Returns:
        (2, 3, num_bins) int64.

    Raises:
        ValueError: The shapes differ, a probability is NaN or outside [0, 1], or `num_bins` is no
            power of two.
    """
    if num_bins < 2 or num_bins & (num_bins - 1):
        raise ValueError(f"num_bins is {num_bins}, not a power of two above 1")
    if probabilities.shape != truth.shape:
        raise ValueError(f"probabilities {probabilities.shape}, truth {truth.shape}: not one shape")
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise ValueError("probabilities outside [0, 1] or NaN")
    flat, true = probabilities.ravel(), truth.ravel()
    table = np.zeros((2, 3, num_bins), np.int64)
    for at in range(0, flat.size, _VOXELS_AT_ONCE):
        part = slice(at, at + _VOXELS_AT_ONCE)
        table += _small_table(flat[part].astype(np.float64), true[part], num_bins)
    return table


def brier_score(table: Table) -> float:
    """Computes the mean squared difference of probability and truth (Brier 1950).

    Returns:
        0 to 1; NaN without a voxel.
    """
    num_voxels = int(table[:, 0].sum())
    true_voxels, true_probability = (int(row) for row in table[1, :2].sum(axis=1))
    squares = int(table[:, 2].sum()) - 2 * true_probability + true_voxels * _UNIT
    return squares / _UNIT / num_voxels if num_voxels else float("nan")


def reliability(table: Table, num_bins: int = 16) -> Reliability:
    """Compares mean probability and share of true voxels, bin by bin.

    Args:
        table: (2, 3, M) int64 of `probability_table`.
        num_bins: A divisor of M; bins of the table are merged.

    Raises:
        ValueError: `num_bins` does not divide M.
    """
    if num_bins < 1 or table.shape[2] % num_bins:
        raise ValueError(f"{num_bins} bins cannot be merged from {table.shape[2]}")
    merged = table.reshape(2, 3, num_bins, -1).sum(axis=3)
    voxels, probability, _ = merged.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return Reliability(probability / _UNIT / voxels, merged[1, 0] / voxels, voxels)


def calibration_error(table: Table, num_bins: int = 16) -> float:
    """Computes the expected calibration error of the foreground probability (Guo et al. 2017).

    It is the mean, over voxels, of |mean probability - share of true voxels| of their bin.

    Args:
        table: (2, 3, M) int64 of `probability_table`.
        num_bins: Number of bins of equal width, a divisor of M.

    Returns:
        0 to 1; NaN without a voxel.
    """
    diagram = reliability(table, num_bins)
    held = diagram.voxels > 0
    if not held.any():
        return float("nan")
    gaps = np.abs(diagram.probability - diagram.frequency)[held]
    return float(np.average(gaps, weights=diagram.voxels[held]))


def thresholds(num_bins: int = NUM_BINS) -> Floats:
    """Lists the thresholds a table answers exactly, k / num_bins for k > 0: (num_bins - 1,)."""
    return np.arange(1, num_bins) / num_bins


def dice_by_threshold(table: Table, empty: EmptyRule = "official") -> Floats:
    """Computes Dice of one case at each threshold, where p >= threshold is foreground.

    Args:
        table: (2, 3, num_bins) int64 of `probability_table`.
        empty: Row of `metrics.EMPTY_MASKS`.

    Returns:
        (num_bins - 1,) float64, in the order of `thresholds(num_bins)`.
    """
    background, foreground = table[:, 0]
    overlap = foreground[::-1].cumsum()[::-1][1:]
    predicted = overlap + background[::-1].cumsum()[::-1][1:]
    both = predicted + foreground.sum()
    nothing = np.float64(EMPTY_MASKS[empty]["dice"].both_empty)
    return np.where(both == 0, nothing, 2 * overlap / np.maximum(both, 1))


def best_threshold(dice_by_case: Mapping[str, Floats]) -> tuple[float, float]:
    """Finds the threshold with the greatest mean Dice over cases.

    NaN is left out of its mean. Sums are exactly rounded, so neither the order of the cases nor
    the rank that held them matters; of equal means the threshold nearest 0.5 wins, then the lower.

    Args:
        dice_by_case: Case id to what `dice_by_threshold` gave, all of one length.

    Returns:
        The threshold and its mean Dice.

    Raises:
        ValueError: No case has a defined Dice.
    """
    scores = np.array(list(dice_by_case.values()), np.float64)
    if not scores.size or np.isnan(scores).all():
        raise ValueError("no case has a defined Dice to choose a threshold by")
    means = np.array([_exact_mean(column) for column in scores.T])
    levels = thresholds(len(means) + 1)
    best = np.flatnonzero(means == np.nanmax(means))
    chosen = min(best, key=lambda index: (abs(levels[index] - 0.5), levels[index]))
    return float(levels[chosen]), float(means[chosen])


def _exact_mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return math.fsum(known) / len(known) if len(known) else float("nan")


def _small_table(values: Floats, truth: NDArray[np.bool_], num_bins: int) -> Table:
    bins = np.minimum((values * num_bins).astype(np.int64), num_bins - 1) + num_bins * truth
    table = np.empty((2, 3, num_bins), np.int64)
    # bincount adds in float64, where integers up to 2^53 are exact.
    for row, weights in enumerate((None, np.rint(values * _UNIT), np.rint(values**2 * _UNIT))):
        sums = np.bincount(bins, weights, minlength=2 * num_bins)
        table[:, row] = sums.reshape(2, num_bins)
    return table
