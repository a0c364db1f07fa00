"""A build stops where labelled data would come out as unlabelled."""

from __future__ import annotations

from pathlib import Path

from brats_cache.format.reader import open_cache
from tests.cache.scans import SMALL, Commands, add_case, mask, splits_of, write

DATA = Path("data")


def test_a_build_without_any_mask_stops_unless_asked_for(brats: Commands) -> None:
    add_case(DATA, "p0")
    add_case(DATA, "p1")
    said = brats("build-cache", *SMALL, code=1).err
    assert "none of the 2 cases has a segmentation" in said
    assert "brats predict" in said
    brats("build-cache", *SMALL, "--allow-unlabelled")
    assert set(splits_of(open_cache("data/brats.h5")).values()) == {"test"}


def test_labelled_cases_that_end_as_test_stop_the_build(brats: Commands) -> None:
    """A follow-up without a mask takes its patient's other scans along."""
    for number in range(4):
        add_case(DATA, f"BraTS-GLI-0000{number}-000", labels=mask((1, 2, 3)), seed=number)
    for number in range(2):
        add_case(DATA, f"BraTS-GLI-0000{number}-001", seed=number)
    said = brats("build-cache", *SMALL, code=1).err
    assert "2 of 4 cases with a segmentation would be test" in said
    assert "BraTS-GLI-00000-000" in said
    brats("build-cache", *SMALL, "--allow-unlabelled")


def test_masks_that_match_no_images_are_not_left_aside_in_silence(brats: Commands) -> None:
    for number in range(4):
        add_case(DATA, f"p{number}", labels=mask((1,)) if number < 2 else None, seed=number)
    for number in range(4):  # second masks of known cases are no missing ones
        write(Path(f"data/qc/p{number % 2}_{number}_seg.nii"), mask((1,)))
    brats("build-cache", *SMALL, "--dry-run")
    for number in (2, 3):
        write(Path(f"data/labels/subject{number}_seg.nii"), mask((1,)))
    said = brats("build-cache", *SMALL, code=1).err
    assert "2 of 4 cases have no segmentation" in said
    assert "subject2_seg.nii" in said
    brats("build-cache", *SMALL, "--allow-unlabelled")


def test_training_slices_without_tumour_are_told(brats: Commands) -> None:
    for number in range(3):
        add_case(DATA, f"p{number}", labels=mask(()), seed=number)
    assert "a single pixel of tumour" in brats("build-cache", *SMALL).err
