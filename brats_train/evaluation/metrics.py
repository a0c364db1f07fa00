"""Scores of one region of one case, on the scan's own grid, with one stated rule for empty masks.

`EMPTY_MASKS` alone decides what a score is where its formula divides by zero or a distance has
nothing to be measured to. docs/metrics.md gives every definition and its source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from brats_train.evaluation.lesion_metrics import HD95_PENALTY_MM, score_lesions
from brats_train.evaluation.surface_distance import (
    Spacing,
    hausdorff_distance,
    surface_dice,
    surface_distances,
)
from brats_train.inference.components import Mask

__all__ = [
    "EMPTY_MASKS",
    "SURFACE_TOLERANCE_MM",
    "EmptyRule",
    "RegionScores",
    "score_region",
]

EmptyRule = Literal["official", "nan"]
SURFACE_TOLERANCE_MM = 1.0


class _EmptyScores(NamedTuple):
    """One metric's value by what is empty; None where its formula holds as it stands."""

    both_empty: float | None
    truth_empty: float | None
    prediction_empty: float | None
    nothing_to_count: float | None = None


_NAN = float("nan")
_FAR = HD95_PENALTY_MM
# A missed region (prediction_empty) never has NaN: left out of a mean, it would improve it.
# nothing_to_count: for specificity a truth that fills the volume, so that there is no background;
# for lesions no lesion above the ignored volume and no false one.
EMPTY_MASKS: Mapping[EmptyRule, Mapping[str, _EmptyScores]] = {
    "official": {
        "dice": _EmptyScores(1.0, 0.0, 0.0),
        "iou": _EmptyScores(1.0, 0.0, 0.0),
        "sensitivity": _EmptyScores(1.0, 0.0, 0.0),
        "specificity": _EmptyScores(None, None, None, nothing_to_count=1.0),
        "precision": _EmptyScores(1.0, 0.0, 0.0),
        "hd95": _EmptyScores(0.0, _FAR, _FAR),
        "nsd": _EmptyScores(1.0, 0.0, 0.0),
        "volume_difference_ml": _EmptyScores(None, None, None),
        "lesion_dice": _EmptyScores(1.0, None, None, nothing_to_count=1.0),
        "lesion_hd95": _EmptyScores(0.0, None, None, nothing_to_count=0.0),
    },
    "nan": {
        "dice": _EmptyScores(_NAN, 0.0, 0.0),
        "iou": _EmptyScores(_NAN, 0.0, 0.0),
        "sensitivity": _EmptyScores(_NAN, _NAN, 0.0),
        "specificity": _EmptyScores(None, None, None, nothing_to_count=_NAN),
        "precision": _EmptyScores(_NAN, 0.0, 0.0),
        "hd95": _EmptyScores(_NAN, _FAR, _FAR),
        "nsd": _EmptyScores(_NAN, 0.0, 0.0),
        "volume_difference_ml": _EmptyScores(None, None, None),
        "lesion_dice": _EmptyScores(_NAN, None, None, nothing_to_count=_NAN),
        "lesion_hd95": _EmptyScores(_NAN, None, None, nothing_to_count=_NAN),
    },
}


@dataclass(frozen=True, kw_only=True)
class RegionScores:
    """Scores of one region of one case: a row of cases.csv, whose columns are these fields.

    NaN: undefined under the rule for empty masks. None: not computed, which only the lesion-wise
    fields can be.

    Attributes:
        dice: 0 to 1, as are the other ratios.
        iou: Intersection over union.
        sensitivity: Share of the true voxels that are predicted.
        specificity: Share of the voxels outside the truth that are not predicted.
        precision: Share of the predicted voxels that are true.
        hd95: 95 % Hausdorff distance in mm.
        nsd: Normalised surface Dice at `SURFACE_TOLERANCE_MM`.
        volume_difference_ml: Predicted minus true volume in ml, so a sum over cases shows a bias.
        lesion_dice: Mean Dice over lesions.
        lesion_hd95: Mean HD95 over lesions in mm.
        true_voxels: Voxels of the truth.
        predicted_voxels: Voxels of the prediction.
        overlap_voxels: Voxels of both.
        true_lesions: True lesions above the challenge's volume.
        missed_lesions: How many of them no predicted component touches.
        false_lesions: Predicted components that touch no true lesion.
    """

    dice: float
    iou: float
    sensitivity: float
    specificity: float
    precision: float
    hd95: float
    nsd: float
    volume_difference_ml: float
    lesion_dice: float | None
    lesion_hd95: float | None
    true_voxels: int
    predicted_voxels: int
    overlap_voxels: int
    true_lesions: int | None
    missed_lesions: int | None
    false_lesions: int | None


def score_region(
    prediction: Mask,
    truth: Mask,
    spacing_mm: Spacing,
    empty: EmptyRule = "official",
    lesionwise: bool = True,
) -> RegionScores:
    """Computes all scores of one region of one case.

    Args:
        prediction: (Z, Y, X) bool, on the scan's own grid.
        truth: (Z, Y, X) bool, of the same shape.
        spacing_mm: Size of a voxel along Z, Y, X in mm.
        empty: Row of `EMPTY_MASKS`: BraTS's own rule, or NaN where a case says nothing.
        lesionwise: False leaves the lesion-wise fields None.

    Raises:
        ValueError: The masks are not boolean volumes of one shape, the spacing is not three
            positive lengths, or `empty` names no rule.
    """
    _check(prediction, truth, spacing_mm, empty)
    predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    overlap = int(np.count_nonzero(prediction & truth))
    background = truth.size - true
    hd95, nsd = (
        _surface_scores(prediction, truth, spacing_mm) if predicted and true else (_NAN,) * 2
    )
    lesions = score_lesions(prediction, truth, spacing_mm) if lesionwise else None
    num_lesions = lesions.num_true + lesions.num_false if lesions else 0

    def score(metric: str, formula: float, counted: int = 1) -> float:
        value = _tabulated(EMPTY_MASKS[empty][metric], predicted, true, counted)
        return formula if value is None else value

    return RegionScores(
        dice=score("dice", _ratio(2 * overlap, predicted + true)),
        iou=score("iou", _ratio(overlap, predicted + true - overlap)),
        sensitivity=score("sensitivity", _ratio(overlap, true)),
        specificity=score(
            "specificity", _ratio(background - (predicted - overlap), background), background
        ),
        precision=score("precision", _ratio(overlap, predicted)),
        hd95=score("hd95", hd95),
        nsd=score("nsd", nsd),
        volume_difference_ml=score(
            "volume_difference_ml", (predicted - true) * math.prod(spacing_mm) / 1000
        ),
        lesion_dice=score("lesion_dice", lesions.dice, num_lesions) if lesions else None,
        lesion_hd95=score("lesion_hd95", lesions.hd95, num_lesions) if lesions else None,
        true_voxels=true,
        predicted_voxels=predicted,
        overlap_voxels=overlap,
        true_lesions=lesions.num_true if lesions else None,
        missed_lesions=lesions.num_missed if lesions else None,
        false_lesions=lesions.num_false if lesions else None,
    )


def _surface_scores(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> tuple[float, float]:
    """HD95 in mm and normalised surface Dice of two masks, neither of them empty."""
    distances = surface_distances(prediction, truth, spacing_mm)
    return hausdorff_distance(distances), surface_dice(distances, SURFACE_TOLERANCE_MM)


def _ratio(numerator: int, denominator: int) -> float:
    """NaN for 0 / 0, which `EMPTY_MASKS` replaces wherever it can occur."""
    return numerator / denominator if denominator else _NAN


def _tabulated(row: _EmptyScores, predicted: int, true: int, counted: int) -> float | None:
    """The table's value for these voxel counts; None where the formula is to be used."""
    if not predicted and not true and row.both_empty is not None:
        return row.both_empty
    if not counted:
        return row.nothing_to_count
    if predicted and not true:
        return row.truth_empty
    if true and not predicted:
        return row.prediction_empty
    return None


def _check(prediction: Mask, truth: Mask, spacing_mm: Spacing, empty: str) -> None:
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != np.bool_ or mask.ndim != 3:
            raise ValueError(f"{name} is {mask.dtype} of shape {mask.shape}, not bool (Z, Y, X)")
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}")
    if len(spacing_mm) != 3 or not all(0 < size < math.inf for size in spacing_mm):
        raise ValueError(f"spacing {spacing_mm} is not three positive lengths in mm")
    if empty not in EMPTY_MASKS:
        raise ValueError(f"empty is {empty!r}, not one of {', '.join(EMPTY_MASKS)}")
