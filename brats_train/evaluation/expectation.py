"""How well the expected Dice of cases agrees with the true one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brats_train.evaluation.bootstrap import score_with_interval

__all__ = ["describe_expected", "rank_correlation", "summarise_expected"]


def summarise_expected(
    expected: Sequence[float], dice: Sequence[float], patients: Sequence[str]
) -> dict[str, Any]:
    """Compares the expected Dice of cases with the true one.

    Args:
        expected: One a case.
        dice: The true one of each; cases where it is NaN are left out.
        patients: The patient of each.

    Returns:
        `num_cases`, their `mean` expected Dice, and each with its interval: `rank_correlation`
        (Spearman 1904), `mean_absolute_error` and `mean_difference`, expected minus true.
    """
    columns = np.array([expected, dice], np.float64).reshape(2, -1)
    known = ~np.isnan(columns).any(axis=0)
    predicted, true = columns[:, known]
    names = np.array(patients, str)[known]
    return {
        "num_cases": int(known.sum()),
        "mean": math.fsum(predicted) / len(predicted) if len(predicted) else math.nan,
        "rank_correlation": score_with_interval(rank_correlation, names, predicted, true),
        "mean_absolute_error": score_with_interval(_mean_absolute_error, names, predicted, true),
        "mean_difference": score_with_interval(_mean_difference, names, predicted, true),
    }


def rank_correlation(expected: np.ndarray, true: np.ndarray) -> float:
    """Spearman's correlation of (n,) values, ties with their mean rank; NaN of constant ones."""
    from scipy import stats  # takes a second to import, and is needed last

    if len(expected) < 2 or np.ptp(expected) == 0 or np.ptp(true) == 0:
        return math.nan
    return float(np.corrcoef(stats.rankdata(expected), stats.rankdata(true))[0, 1])


def describe_expected(summaries: Sequence[Mapping[str, Any] | None]) -> list[tuple[str, list[str]]]:
    """Rows for a terminal: a label, and a cell for each region; no rows where no region has any.

    The rank correlation is shown only where it has an interval: of two cases it is 1 or -1,
    whatever they are.
    """
    if not any(summaries):
        return []
    rows = [("expected Dice", "mean"), ("  error", "mean_absolute_error")]
    if any(one and not math.isnan(one["rank_correlation"]["low"]) for one in summaries):
        rows.insert(1, ("  rank corr.", "rank_correlation"))
    return [(label, [_cell(one[key]) if one else "" for one in summaries]) for label, key in rows]


def _mean_absolute_error(expected: np.ndarray, true: np.ndarray) -> float:
    return math.fsum(abs(expected - true)) / len(expected) if len(expected) else math.nan


def _mean_difference(expected: np.ndarray, true: np.ndarray) -> float:
    return math.fsum(expected - true) / len(expected) if len(expected) else math.nan


def _cell(score: float | Mapping[str, float]) -> str:
    if not isinstance(score, Mapping):
        return _number(score)
    text = _number(score["value"])
    return text if math.isnan(score["low"]) else f"{text} [{score['low']:.3f}, {score['high']:.3f}]"


def _number(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"
