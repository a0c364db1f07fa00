"""Runs beside each other: scores on the cases that all of them scored, and paired differences.

A difference is taken case by case, so that what makes a case hard for every model cancels out; its
interval is the bootstrap interval of the mean difference over patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from brats_cache.common.errors import BratsError
from brats_train.evaluation.bootstrap import MIN_PATIENTS, bootstrap_interval
from brats_train.evaluation.results import Results

__all__ = ["COMPARED", "Estimate", "MetricComparison", "common_cases", "compare_results"]

COMPARED = ("dice", "nsd", "hd95")


@dataclass(frozen=True)
class Estimate:
    """A mean over cases with its 95 % interval, NaN for fewer than five patients."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class MetricComparison:
    """One score of one region, for every run.

    Attributes:
        region: "wt", "tc" or "et".
        metric: One of `COMPARED`.
        num_cases: Cases for which every run has the score.
        means: Of each run, in order.
        differences: Of each run minus the first; the first run's is 0.
        values: Of each run, the score of each of these cases.
    """

    region: str
    metric: str
    num_cases: int
    means: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]
    values: tuple[tuple[float, ...], ...]


def common_cases(results: Sequence[Results]) -> list[str]:
    """The cases that every run has scored, sorted.

    Raises:
        BratsError: There is none.
    """
    shared = set(results[0].cases).intersection(*(one.cases for one in results[1:]))
    if not shared:
        folders = " and ".join(str(one.folder) for one in results)
        raise BratsError(
            f"{folders} have no case in common. Compare runs of one cache and one split."
        )
    return sorted(shared)


def compare_results(results: Sequence[Results]) -> list[MetricComparison]:
    """Compares evaluations on the cases and regions that all of them scored.

    Raises:
        BratsError: They have no case in common.
    """
    cases = common_cases(results)
    compared = []
    for region in results[0].regions:
        if not all(region in one.regions for one in results):
            continue
        for metric in COMPARED:
            by_case = [one.values(region, metric) for one in results]
            known = [
                case
                for case in cases
                if not any(math.isnan(values.get(case, math.nan)) for values in by_case)
            ]
            if known:
                columns = tuple(tuple(values[case] for case in known) for values in by_case)
                patients = [results[0].patient(case) for case in known]
                compared.append(_compare(region, metric, patients, columns))
    return compared


def _compare(
    region: str, metric: str, patients: Sequence[str], columns: tuple[tuple[float, ...], ...]
) -> MetricComparison:
    differences = [
        [value - first for value, first in zip(column, columns[0], strict=True)]
        for column in columns
    ]
    return MetricComparison(
        region=region,
        metric=metric,
        num_cases=len(patients),
        means=tuple(_estimate(column, patients) for column in columns),
        differences=tuple(_estimate(column, patients) for column in differences),
        values=columns,
    )


def _estimate(values: Sequence[float], patients: Sequence[str]) -> Estimate:
    mean = math.fsum(values) / len(values)
    if len(set(patients)) < MIN_PATIENTS:
        return Estimate(mean, math.nan, math.nan)
    return Estimate(mean, *bootstrap_interval(values, patients))
