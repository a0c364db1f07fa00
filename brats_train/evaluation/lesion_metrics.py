"""Lesion-wise Dice and HD95, as in the BraTS 2023 challenges.

A missed lesion and a false one each count as a whole lesion, however small. The rule, in the words
of its authors (Saluja et al., github.com/rachitsaluja/BraTS-2023-Metrics):
true components that merge when the truth is dilated are one lesion; every predicted component that
touches the dilated lesion is part of its prediction; true lesions up to a volume are left out; a
missed lesion and a predicted component that touches no lesion each count with Dice 0 and HD95 374.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from brats_cache.imaging.bounding_box import bounding_box
from brats_train.evaluation.surface_distance import Spacing, hausdorff_distance, surface_distances
from brats_train.inference.components import Labels, Mask, label_components

__all__ = ["HD95_PENALTY_MM", "LesionRule", "LesionScores", "score_lesions"]

# The challenge's worst distance: the diagonal of its 240 x 240 x 155 mm volume, rounded up.
HD95_PENALTY_MM = 374.0


@dataclass(frozen=True, kw_only=True)
class LesionRule:
    """Parameters of a challenge; the defaults are those for adult glioma (BraTS-GLI 2023).

    Attributes:
        num_dilations: How often the truth is dilated by its 18-neighbourhood before it is split.
        ignored_volume_mm3: True lesions of this volume or less are left out.
    """

    num_dilations: int = 3
    ignored_volume_mm3: float = 50.0


@dataclass(frozen=True, kw_only=True)
class LesionScores:
    """Scores of the lesions of one region of one case.

    Attributes:
        num_true: True lesions above the ignored volume.
        num_missed: How many of them no predicted component touches.
        num_false: Predicted components that touch no true lesion, ignored ones included.
        dice: Mean over num_true + num_false lesions; NaN where there are none.
        hd95: Likewise, in mm.
    """

    num_true: int
    num_missed: int
    num_false: int
    dice: float
    hd95: float


def score_lesions(
    prediction: Mask, truth: Mask, spacing_mm: Spacing, rule: LesionRule | None = None
) -> LesionScores:
    """Computes lesion-wise Dice and HD95; components are 26-connected.

    Args:
        prediction: (Z, Y, X) bool.
        truth: (Z, Y, X) bool of the same shape.
        spacing_mm: Size of a voxel along Z, Y, X in mm.
        rule: Parameters; None for those of adult glioma.
    """
    rule = rule or LesionRule()
    box = bounding_box(prediction | truth, margin=rule.num_dilations)
    prediction, truth = prediction[box], truth[box]
    reaches, num_lesions = label_components(_dilate(truth, rule.num_dilations))
    components, num_components = label_components(prediction)
    # A lesion's own dilation is exactly its component of the dilated truth, so one labelling tells
    # both which voxels are its and what touches it.
    touching = _touching(reaches, components, num_lesions, num_components)
    lesions = np.where(truth, reaches, 0)

    voxels = np.bincount(lesions.ravel(), minlength=num_lesions + 1)
    overlap = np.bincount(lesions[prediction], minlength=num_lesions + 1)
    predicted = touching @ np.bincount(components.ravel(), minlength=num_components + 1)
    counted = np.flatnonzero(voxels * np.prod(spacing_mm) > rule.ignored_volume_mm3)
    counted = counted[counted > 0]

    dice = 2 * overlap[counted] / (voxels[counted] + predicted[counted])
    hd95 = _lesion_distances(lesions, components, touching, counted, spacing_mm)
    num_false = num_components - int(touching.any(axis=0).sum())
    num_scored = len(counted) + num_false
    return LesionScores(
        num_true=len(counted),
        num_missed=int((predicted[counted] == 0).sum()),
        num_false=num_false,
        dice=float(dice.sum() / num_scored) if num_scored else float("nan"),
        hd95=float((sum(hd95) + num_false * HD95_PENALTY_MM) / num_scored)
        if num_scored
        else float("nan"),
    )


def _lesion_distances(
    lesions: Labels,
    components: Labels,
    touching: Mask,
    counted: NDArray[np.intp],
    spacing_mm: Spacing,
) -> list[float]:
    """HD95 in mm of each lesion in `counted`, each measured inside its own box."""
    if not counted.size:
        return []
    lesion_boxes = ndimage.find_objects(lesions)
    component_boxes = ndimage.find_objects(components)
    distances = []
    for lesion in counted:
        parts = np.flatnonzero(touching[lesion])
        if not parts.size:
            distances.append(HD95_PENALTY_MM)
            continue
        box = _enclose([lesion_boxes[lesion - 1], *(component_boxes[i - 1] for i in parts)])
        found = surface_distances(
            touching[lesion][components[box]], lesions[box] == lesion, spacing_mm
        )
        distances.append(hausdorff_distance(found))
    return distances


def _dilate(mask: Mask, num_dilations: int) -> Mask:
    """`mask` grown `num_dilations` times by one voxel across faces and edges, not corners."""
    if not num_dilations:
        return mask
    neighbours = ndimage.generate_binary_structure(rank=3, connectivity=2)
    return np.asarray(ndimage.binary_dilation(mask, neighbours, iterations=num_dilations))


def _touching(reaches: Labels, components: Labels, num_lesions: int, num_components: int) -> Mask:
    """(lesions + 1, components + 1) bool: which components meet which lesion's reach; row and
    column 0 stand for background and stay False."""
    both = (reaches > 0) & (components > 0)
    touching = np.zeros((num_lesions + 1, num_components + 1), bool)
    touching[reaches[both], components[both]] = True
    return touching


def _enclose(boxes: list[tuple[slice, ...]]) -> tuple[slice, ...]:
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*boxes, strict=True)
    )
