"""Checks for masks that no naming rule matches, brain masks, and labelled data left unused."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.text import first_few
from brats_cache.discovery.cases import Case
from brats_cache.discovery.file_names import (
    begins_with,
    parse_name,
    plain_word,
    stem_of,
    words_of,
)
from brats_cache.discovery.mask_names import KNOWN_MASK_WORDS
from brats_cache.discovery.namings import MASK
from brats_cache.imaging.grid import GRID_TOLERANCE_MM, Grid, largest_displacement
from brats_cache.imaging.nifti import read_contents, read_labels
from brats_cache.imaging.nifti_header import Header, read_header

__all__ = ["brain_mask_faults", "candidate_fault", "check_labelled"]

MAX_LABELS = 10  # distinct values of a segmentation, the background included
MAX_SHARE_OF_BRAIN = 0.5
EQUAL_SHARE = 0.9  # of the brain: the mask is the brain, more or less eroded
MIN_BRAIN_ML = 700.0  # the largest gliomas are below 500 ml, brains of children above
MAX_SHARE_LOST = 0.25  # of the labelled cases that may end as test


class MaskCounts(Protocol):
    """The part of `survey.Survey` that these checks need."""

    @property
    def case(self) -> Case: ...
    @property
    def label_values(self) -> tuple[int, ...]: ...
    @property
    def label_pixels(self) -> np.ndarray: ...
    @property
    def affine(self) -> np.ndarray: ...
    @property
    def brain_pixels(self) -> np.ndarray: ...


def candidate_fault(case: Case, scan: Header, brain: np.ndarray) -> Fault | None:
    """Checks whether a file that no naming rule matches could be the mask of a case without one.

    Args:
        case: The case; its `unclaimed` files are checked.
        scan: Header of one of its scans.
        brain: (Z, Y, X) bool.

    Returns:
        A fault that names the first such file: whole numbers, few of them, on the grid of the
        scans, and not the brain itself; or damaged, so that this cannot be told. None where there
        is no such file.
    """
    for path in case.unclaimed:
        try:
            header = read_header(path)
        except DataFaults:  # no NIfTI file
            continue
        if header.num_channels != 1 or not _may_be_same_grid(scan, header):
            continue
        try:
            contents = read_contents(header)
        except DataFaults as error:
            return replace(error.faults[0], case=case.id)
        try:
            labels = read_labels(contents)
        except DataFaults:  # values that are no labels
            continue
        values = np.unique(labels)
        if not 2 <= len(values) <= MAX_LABELS:
            continue
        num_labelled, num_brain = int(np.count_nonzero(labels)), int(np.count_nonzero(brain))
        millilitres = _millilitres(num_labelled, scan.affine)
        if not _is_large(num_labelled / max(1, num_brain), millilitres, len(values) - 1):
            return _candidate_fault(case, path)
    return None


def _candidate_fault(case: Case, path: Path) -> Fault:
    word = _mask_word(case, path)
    way = f"say --mask-word {shlex.quote(word)}, or " if word else ""
    return Fault(
        case=case.id,
        path=path,
        found="few different whole numbers on the grid of the scans, which could be the mask of "
        "this case",
        expected=f"a mask whose name ends in a known word ({', '.join(KNOWN_MASK_WORDS)})",
        remedy=f"If it is the mask, {way}name the files in a table (brats scan, --manifest); else "
        "move it away.",
    )


def _mask_word(case: Case, path: Path) -> str:
    """Returns a value of --mask-word that makes a file the mask of a case, "" for none."""
    stem = stem_of(path.name)
    rest = stem[len(case.id) :].strip("_-. ") if begins_with(stem, case.id) else stem
    letters = [word for word in words_of(rest) if not word.isdecimal()]
    for word in (letters[-1] if letters else "", rest):
        role = parse_name(path, case.data_dir, mask_words={plain_word(word)} - {""})
        if role is not None and role.role == MASK and role.case.lower() == case.id.lower():
            return word
    return ""


def _may_be_same_grid(scan: Header, header: Header) -> bool:
    """Whether a file has the grid of a scan, its axes in any order, or lost its place in space."""
    first = Grid(shape=scan.shape, affine=scan.affine)
    other = Grid(shape=header.shape, affine=header.affine)
    if first.canonical_shape == other.canonical_shape:
        affines = (first.canonical_affine, other.canonical_affine)
        if largest_displacement(first.canonical_shape, *affines) <= GRID_TOLERANCE_MM:
            return True
    # Arrays that were saved without the affine of their scans have an origin of 0.
    is_unplaced = np.array_equal(header.affine, np.diag(np.diag(header.affine)))
    return is_unplaced and scan.shape == header.shape


def brain_mask_faults(surveys: Sequence[MaskCounts]) -> list[Fault]:
    """Finds segmentations that are a mask of the brain and not of a tumour.

    Args:
        surveys: All cases of a build.

    Returns:
        A fault for each case whose mask is about equal to the brain. Where most masks fill more
        than half of the brain, or have one label and the volume of a brain, a fault for each of
        these.
    """
    masked = [survey for survey in surveys if survey.case.mask and survey.label_values]
    found: dict[str, str] = {}
    is_equal: dict[str, bool] = {}
    for survey in masked:
        num_labelled = int(survey.label_pixels.sum())
        share = num_labelled / max(1, int(survey.brain_pixels.sum()))
        millilitres = _millilitres(num_labelled, survey.affine)
        is_equal[survey.case.id] = share >= EQUAL_SHARE
        if _is_large(share, millilitres, len(survey.label_values)):
            volume = "" if share > MAX_SHARE_OF_BRAIN else f" of {millilitres:.0f} ml"
            found[survey.case.id] = f"a mask{volume} that fills {min(1.0, share):.0%} of the brain"
    are_most = 2 * len(found) > len(masked)
    return [
        Fault(
            case=survey.case.id,
            path=survey.case.mask.path if survey.case.mask else None,
            found=found[survey.case.id],
            expected="the mask of a tumour, not of the brain",
            remedy="Move brain masks away, or name the files in a table (brats scan, --manifest).",
        )
        for survey in masked
        if survey.case.id in found and (are_most or is_equal[survey.case.id])
    ]


def _is_large(share: float, millilitres: float, num_labels: int) -> bool:
    """Whether a mask is too large for a tumour.

    Args:
        share: Part of the brain that it fills. In scans that are not skull-stripped all of the head
            counts as brain, and the volume decides.
        millilitres: Its volume.
        num_labels: Number of its values, without 0; a mask of the brain has one.
    """
    return share > MAX_SHARE_OF_BRAIN or (num_labels == 1 and millilitres > MIN_BRAIN_ML)


def _millilitres(num_voxels: int, affine: np.ndarray) -> float:
    return num_voxels * abs(float(np.linalg.det(affine[:3, :3]))) / 1000


def check_labelled(
    cases: Sequence[Case],
    split_of: Mapping[str, str],
    *,
    is_decided: bool,
    stray_masks: Sequence[Path] = (),
) -> None:
    """Refuses a build in which labelled data came out as unlabelled.

    Args:
        cases: All cases of the build.
        split_of: The split of each case by its id.
        is_decided: Whether a table gives the splits, so that test was meant.
        stray_masks: Masks that match no images.

    Raises:
        BratsError: No case has a mask; or, where no table gives the splits, more than a quarter of
            the cases that have one, counting one case for each stray mask, are test.
    """
    masked = [case for case in cases if case.mask is not None]
    way = "Say --allow-unlabelled if that is meant."
    if not masked:
        raise BratsError(
            f"none of the {len(cases)} cases has a segmentation, so a cache of them could not be "
            "trained on; to segment them, use brats predict. If there are masks, name the word in "
            f"their names with --mask-word WORD, or the files with --manifest. {way}"
        )
    if is_decided:
        return
    lost = [case.id for case in masked if split_of[case.id] == "test"]
    if len(lost) > MAX_SHARE_LOST * len(masked):
        raise BratsError(
            f"{len(lost)} of {len(masked)} cases with a segmentation would be test, because other "
            f"cases of the same patients have none ({first_few(lost, 3)}). Complete or leave out "
            f"the cases without segmentation. {way}"
        )
    unmasked = [case.id for case in cases if case.mask is None]
    num_unmatched = min(len(unmasked), len(stray_masks))
    if num_unmatched > MAX_SHARE_LOST * (len(masked) + num_unmatched):
        raise BratsError(
            f"{len(unmasked)} of {len(cases)} cases have no segmentation and would be test "
            f"({first_few(unmasked, 3)}), while {len(stray_masks)} masks match no images "
            f"({first_few(stray_masks, 3)}). Give masks the ids of their cases, or name the files "
            f"in a table (brats scan, --manifest). {way}"
        )
