"""What a person should know of a plan before its rows are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from brats_cache.build.survey import Survey
from brats_cache.common.text import first_few
from brats_cache.imaging.labels import REGIONS, Scheme
from brats_cache.imaging.scheme_detection import schemes_of_id

__all__ = ["plan_warnings"]


class CaseOfPlan(Protocol):
    """What `plan.PlannedCase` knows of a case."""

    @property
    def survey(self) -> Survey: ...
    @property
    def scheme(self) -> Scheme: ...
    @property
    def split(self) -> str: ...
    @property
    def slices(self) -> np.ndarray: ...
    @property
    def canonical_pixels(self) -> np.ndarray: ...


def plan_warnings(surveys: Sequence[Survey], cases: Sequence[CaseOfPlan]) -> list[str]:
    """Looks for what is allowed but rarely meant.

    Args:
        surveys: The surveys of the cases.
        cases: The planned cases.

    Returns:
        One line for each kind of warning.
    """
    return [
        *_warn_of_brains(surveys),
        *_warn_of_no_tumor(cases),
        *_warn_of_other_schemes(cases),
    ]


def _warn_of_brains(surveys: Sequence[Survey]) -> list[str]:
    """Warns of cases without a zero voxel, whose background cannot be told from the brain."""
    filled = [
        survey.case.id
        for survey in surveys
        if int(survey.brain_pixels.sum()) == int(np.prod(survey.shape))
    ]
    if not filled:
        return []
    names = first_few(filled)
    return [
        f"no voxel is zero in {names}: the background is taken for brain, in the statistics that "
        "normalise the scan as well. Set it to zero (skull stripping) unless that is meant."
    ]


def _warn_of_no_tumor(cases: Sequence[CaseOfPlan]) -> list[str]:
    """Warns when no training slice holds a tumour, so that nothing can be learned."""
    train = [case for case in cases if case.split == "train" and len(case.slices)]
    labels = sorted(REGIONS["wt"])
    if not train or any(case.canonical_pixels[labels][:, case.slices].any() for case in train):
        return []
    return [
        f"none of the training slices of {len(train)} cases holds a single pixel of tumour; "
        "training on this cache alone will stop. Look at the masks and at --slices."
    ]


def _warn_of_other_schemes(cases: Sequence[CaseOfPlan]) -> list[str]:
    """Warns of label schemes that the data sets which the ids name have never used."""
    odd = [
        case.survey.case.id
        for case in cases
        if case.survey.case.mask
        and case.scheme.name != "binary"
        and (known := schemes_of_id(case.survey.case.id))
        and case.scheme.name not in known
    ]
    if not odd:
        return []
    return [
        f"the label scheme of {first_few(odd, 3)} is none that masks of their data set follow; "
        "look at --label-scheme"
    ]
