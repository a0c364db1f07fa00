"""Checks for masks that no naming rule matches, brain masks, and labelled data left unused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.text import first_few
from brats_cache.discovery.cases import Case
from brats_cache.discovery.mask_names import KNOWN_MASK_WORDS
from brats_cache.imaging.grid import GRID_TOLERANCE_MM, largest_displacement
from brats_cache.imaging.nifti import read_contents, read_labels
from brats_cache.imaging.nifti_header import Header, read_header

__all__ = ["brain_mask_faults", "candidate_fault", "check_labelled"]

MAX_LABELS = 10  # distinct values of a segmentation, the background included
MAX_SHARE_OF_BRAIN = 0.5
EQUAL_SHARE = 0.995  # of the brain: the mask is the brain
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
    def brain_pixels(self) -> np.ndarray: ...


def candidate_fault(case: Case, scan: Header, brain: np.ndarray) -> Fault | None:
    """Checks whether a file that no naming rule matches could be the mask of a case without one.

    Args:
        case: The case; its `unclaimed` files are checked.
        scan: Header of one of its scans.
        brain: (Z, Y, X) bool.

    Returns:
        A fault that names the first such file: whole numbers, few of them, on the grid of the
        scans, and not the brain itself. None where there is no such file.
    """
    for path in case.unclaimed:
        try:
            header = read_header(path)
            if header.num_channels != 1 or not _is_same_grid(scan, header):
                continue
            labels = read_labels(read_contents(header))
        except DataFaults:  # no NIfTI, or values that are no labels
            continue
        num_values = len(np.unique(labels))
        share = int(np.count_nonzero(labels)) / max(1, int(np.count_nonzero(brain)))
        if 2 <= num_values <= MAX_LABELS and share <= MAX_SHARE_OF_BRAIN:
            return Fault(
                case=case.id,
                path=path,
                found=f"a file of {num_values} whole numbers on the grid of the scans, which could "
                "be the mask of this case",
                expected="a mask whose name holds a known word ("
                + ", ".join(KNOWN_MASK_WORDS)
                + ")",
                remedy="If it is the mask, name its word with --mask-word WORD, or name the files "
                "in a table (brats scan, --manifest); else move it away.",
            )
    return None


def _is_same_grid(first: Header, other: Header) -> bool:
    return (
        first.shape == other.shape
        and largest_displacement(first.shape, first.affine, other.affine) <= GRID_TOLERANCE_MM
    )


def brain_mask_faults(surveys: Sequence[MaskCounts]) -> list[Fault]:
    """Finds segmentations that are a mask of the brain and not of a tumour.

    Args:
        surveys: All cases of a build.

    Returns:
        A fault for each case whose mask equals the brain, and for each whose mask fills more than
        half of it where that is so in most cases.
    """
    masked = [survey for survey in surveys if survey.case.mask and survey.label_values]
    shares = {
        survey.case.id: int(survey.label_pixels.sum()) / max(1, int(survey.brain_pixels.sum()))
        for survey in masked
    }
    large = {case for case, share in shares.items() if share > MAX_SHARE_OF_BRAIN}
    are_most = 2 * len(large) > len(masked)
    return [
        Fault(
            case=survey.case.id,
            path=survey.case.mask.path if survey.case.mask else None,
            found=f"a mask that fills {min(1.0, shares[survey.case.id]):.0%} of the brain",
            expected="the mask of a tumour, not of the brain",
            remedy="Move brain masks away, or name the files in a table (brats scan, --manifest).",
        )
        for survey in masked
        if shares[survey.case.id] >= EQUAL_SHARE or (are_most and survey.case.id in large)
    ]


def check_labelled(
    cases: Sequence[Case], split_of: dict[str, str], *, decided_by: Path | None
) -> None:
    """Refuses a build in which labelled data came out as unlabelled.

    Args:
        cases: All cases of the build.
        split_of: The split of each case by its id.
        decided_by: The table that gives the splits, None where they are computed.

    Raises:
        BratsError: No case has a mask, or, without such a table, more than a quarter of the cases
            that have one are test.
    """
    masked = [case for case in cases if case.mask is not None]
    way = "Say --allow-unlabelled if that is meant."
    if not masked:
        raise BratsError(
            f"none of the {len(cases)} cases has a segmentation, so a cache of them could not be "
            "trained on; to segment them, use brats predict. If there are masks, name the word in "
            f"their names with --mask-word WORD, or the files with --manifest. {way}"
        )
    lost = [case.id for case in masked if split_of[case.id] == "test"]
    if decided_by is None and len(lost) > MAX_SHARE_LOST * len(masked):
        raise BratsError(
            f"{len(lost)} of {len(masked)} cases with a segmentation would be test, because other "
            f"cases of the same patients have none ({first_few(lost, 3)}). Complete or leave out "
            f"the cases without segmentation. {way}"
        )
