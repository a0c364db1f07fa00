"""BIDS names: subject and session are patient and case, entities tell contrast and mask."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_cache.discovery.bids import parse_bids
from brats_cache.discovery.cases import find_cases
from tests.cache.discovery.trees import add_scans, only_case, patients

SCANS = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")


@pytest.mark.parametrize("sessions", [("ses-01", "ses-02"), ("ses-preop", "ses-postop")])
def test_sessions_of_a_subject_are_one_patient(tmp_path: Path, sessions: tuple[str, ...]) -> None:
    for subject in ("sub-07", "sub-A8"):
        for session in sessions:
            place = f"{subject}/{session}/anat/{subject}_{session}_"
            add_scans(tmp_path, place, SCANS)
            add_scans(tmp_path, f"derivatives/manual/{place}", ("desc-tumor_dseg",))
    found = find_cases([tmp_path])
    assert found.notes == ()
    assert all(case.mask is not None for case in found.cases)
    assert patients(found) == {
        f"{subject}_{session}": subject for subject in ("sub-07", "sub-A8") for session in sessions
    }


def test_a_subject_without_session_is_a_case(tmp_path: Path) -> None:
    add_scans(tmp_path, "sub-3/anat/sub-3_", ("T1w", "ce-GADOLINIUM_T1w", "T2w", "FLAIR", "dseg"))
    case = only_case(find_cases([tmp_path]))
    assert (case.id, case.patient) == ("sub-3", "sub-3")
    assert case.images["t1ce"].path.name == "sub-3_ce-GADOLINIUM_T1w.nii.gz"
    assert case.images["t1"].path.name == "sub-3_T1w.nii.gz"


def test_raw_scans_come_before_derivatives_and_masks_of_the_brain_are_none(tmp_path: Path) -> None:
    add_scans(tmp_path, "sub-5/anat/sub-5_", SCANS)
    derived = tuple(f"space-T1w_desc-preproc_{name}" for name in ("T1w", "T2w", "FLAIR"))
    others = ("desc-brain_mask", "label-GM_dseg", "desc-aparcaseg_dseg", "label-lesion_mask")
    add_scans(tmp_path, "derivatives/prep/sub-5/anat/sub-5_", (*derived, *others))
    case = only_case(find_cases([tmp_path]))
    assert {scan.path.parent for scan in case.images.values()} == {tmp_path / "sub-5" / "anat"}
    assert case.mask is not None
    assert case.mask.path.name == "sub-5_label-lesion_mask.nii.gz"


def test_two_runs_of_a_scan_are_a_fault(tmp_path: Path) -> None:
    add_scans(tmp_path, "sub-5/anat/sub-5_", ("run-1_T1w", "run-2_T1w"))
    (fault,) = find_cases([tmp_path], ("t1",)).faults
    assert "sub-5_run-1_T1w.nii.gz and sub-5_run-2_T1w.nii.gz" in fault.found


def test_one_region_of_a_tumor_is_no_mask_but_a_candidate(tmp_path: Path) -> None:
    add_scans(tmp_path, "sub-5/anat/sub-5_", (*SCANS, "label-necrosis_mask"))
    case = only_case(find_cases([tmp_path]))
    assert case.mask is None
    assert [path.name for path in case.unclaimed] == ["sub-5_label-necrosis_mask.nii.gz"]


@pytest.mark.parametrize("stem", ["sub7-t1_pre", "sub-1_T9w", "ses-1_T1w", "sub-1_extra_T1w"])
def test_other_names_are_none_of_bids(stem: str) -> None:
    assert parse_bids(stem) is None
