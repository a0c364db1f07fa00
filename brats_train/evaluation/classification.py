"""Scores of a classification of cases: accuracy, AUC, confusion matrix, calibration.

Definitions are those of scikit-learn, with which the tests compare them. Intervals are percentile
bootstrap intervals over patients, each drawn with all of its cases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brats_cache.common.csv_names import csv_text, written_name
from brats_cache.common.errors import printable
from brats_train.evaluation.bootstrap import score_with_interval

__all__ = [
    "ClassifiedCase",
    "area_under_curve",
    "describe_classes",
    "labels_csv",
    "summarise_classes",
]

NUM_BINS = 10  # of the calibration error


@dataclass(frozen=True, kw_only=True)
class ClassifiedCase:
    """The classification of one case.

    Attributes:
        case: Its id.
        patient: Its patient.
        label: The true class, "" where it is not known.
        probabilities: One a class, which sum to 1.
    """

    case: str
    patient: str
    label: str
    probabilities: tuple[float, ...]


def area_under_curve(is_positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half.

    That is Mann and Whitney's U over the number of pairs (Hanley and McNeil 1982).

    Args:
        is_positive: (n,) bool.
        score: (n,) real numbers.

    Returns:
        0 to 1; NaN where all are positive or none is.
    """
    from scipy import stats  # takes a second to import, and is needed last

    num_positive = int(is_positive.sum())
    num_pairs = num_positive * (len(is_positive) - num_positive)
    if not num_pairs:
        return math.nan
    ranks = stats.rankdata(score)[is_positive].sum()
    return float((ranks - num_positive * (num_positive + 1) / 2) / num_pairs)


def summarise_classes(cases: Sequence[ClassifiedCase], classes: Sequence[str]) -> dict[str, Any]:
    """Scores the cases that have a label.

    Args:
        cases: The cases; those without a label, or with one that is no class, do not count.
        classes: The L classes, in the order of the probabilities.

    Returns:
        For JSON. `accuracy`, `balanced_accuracy` and `auc` (of more than two classes the mean over
        classes against the rest) each with `value`, `low` and `high`; `sensitivity` and
        `specificity` by class; `confusion`, rows of true and columns of predicted classes;
        `brier_score`, the mean over cases of the summed squared errors; `calibration_error` of the
        predicted class. NaN for what the cases do not define.
    """
    known = [one for one in cases if one.label in classes]
    truth = np.array([list(classes).index(one.label) for one in known], np.int64)
    given = np.array([one.probabilities for one in known]).reshape(len(known), len(classes))
    patients = np.unique([one.patient for one in known], return_inverse=True)[1]
    confusion = _confusion(truth, given)
    return {
        "classes": list(classes),
        "num_cases": len(known),
        "num_unlabelled": len(cases) - len(known),
        "accuracy": score_with_interval(_accuracy, patients, truth, given),
        "balanced_accuracy": score_with_interval(_balanced_accuracy, patients, truth, given),
        "auc": score_with_interval(_mean_auc, patients, truth, given),
        "sensitivity": dict(zip(classes, _recalls(confusion), strict=True)),
        "specificity": dict(zip(classes, _specificities(confusion), strict=True)),
        "confusion": confusion.tolist(),
        "brier_score": _brier(truth, given),
        "calibration_error": _calibration_error(truth, given),
    }


def labels_csv(cases: Sequence[ClassifiedCase], classes: Sequence[str]) -> str:
    """Writes one row per case: true label, predicted label, the probability of each."""
    rows = [["case", "label", "predicted", *(written_name(f"p_{name}") for name in classes)]]
    for one in cases:
        predicted = classes[int(np.argmax(one.probabilities))]
        names = [written_name(name) for name in (one.case, one.label, predicted)]
        rows.append([*names, *(f"{value:.6f}" for value in one.probabilities)])
    return csv_text(rows)


def describe_classes(summary: Mapping[str, Any]) -> str:
    """The scores of `summarise_classes` as lines for a terminal."""
    names = [printable(name) for name in summary["classes"]]
    lines = [f"labels        {summary['num_cases']} cases ({', '.join(names)})"]
    for label, key in (
        ("accuracy", "accuracy"),
        ("balanced", "balanced_accuracy"),
        ("AUC", "auc"),
    ):
        score = summary[key]
        text = f"{score['value']:.3f}"
        if not math.isnan(score["low"]):
            text += f" [{score['low']:.3f}, {score['high']:.3f}]"
        lines.append(f"{label:<14}{text}")
    return "\n".join(lines)


def _confusion(truth: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(L, L) int64, rows of true and columns of predicted classes."""
    counts = np.zeros((given.shape[1],) * 2, np.int64)
    if len(truth):
        np.add.at(counts, (truth, given.argmax(axis=1)), 1)
    return counts


def _recalls(confusion: np.ndarray) -> list[float]:
    return [_ratio(int(row[index]), int(row.sum())) for index, row in enumerate(confusion)]


def _specificities(confusion: np.ndarray) -> list[float]:
    total = int(confusion.sum())
    values = []
    for index in range(len(confusion)):
        others = total - int(confusion[index].sum())
        false = int(confusion[:, index].sum() - confusion[index, index])
        values.append(_ratio(others - false, others))
    return values


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _accuracy(truth: np.ndarray, given: np.ndarray) -> float:
    return float((given.argmax(axis=1) == truth).mean()) if len(truth) else math.nan


def _balanced_accuracy(truth: np.ndarray, given: np.ndarray) -> float:
    """The mean sensitivity over the classes that occur."""
    recalls = [value for value in _recalls(_confusion(truth, given)) if not math.isnan(value)]
    return sum(recalls) / len(recalls) if recalls else math.nan


def _mean_auc(truth: np.ndarray, given: np.ndarray) -> float:
    num_classes = given.shape[1]
    if num_classes == 2:
        return area_under_curve(truth == 1, given[:, 1])
    areas = [area_under_curve(truth == k, given[:, k]) for k in range(num_classes)]
    return math.nan if any(map(math.isnan, areas)) else sum(areas) / num_classes


def _brier(truth: np.ndarray, given: np.ndarray) -> float:
    """Brier 1950, the sum over classes."""
    if not len(truth):
        return math.nan
    wanted = np.eye(given.shape[1])[truth]
    return float(((given - wanted) ** 2).sum(axis=1).mean())


def _calibration_error(truth: np.ndarray, given: np.ndarray) -> float:
    """Mean distance of confidence and accuracy over bins of confidence (Guo et al. 2017)."""
    if not len(truth):
        return math.nan
    confidence, is_right = given.max(axis=1), given.argmax(axis=1) == truth
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = [
        abs(float((confidence - is_right)[bins == one].sum())) for one in np.unique(bins).tolist()
    ]
    return math.fsum(gaps) / len(truth)
