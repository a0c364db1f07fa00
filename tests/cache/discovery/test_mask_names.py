"""Which file of a case is its tumour mask, which is none, and which could be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_cache.discovery.cases import find_cases
from tests.cache.discovery.trees import FOUR, add_files, add_scans, only_case


@pytest.mark.parametrize(
    "word",
    [
        "seg",
        "segmentations",
        "Tumor_Segmentation",
        "tumorMask",
        "tumour-mask",
        "brain_tumor_mask",
        "labels",
        "GlistrBoost",
        "GlistrBoost_ManuallyCorrected",
        "final_seg",
        "OT",
        "gtv",
        "gt",
        "BraTS_tumor_seg",
        "tumorseg_FeTS",
        "tumorseg_manual_correction",
        "automated_approx_segm",
        "mask",
    ],
)
def test_a_known_word_makes_the_mask(tmp_path: Path, word: str) -> None:
    add_scans(tmp_path, "ZH-0031/ZH-0031_", (*FOUR, word))
    case = only_case(find_cases([tmp_path]))
    assert case.mask is not None
    assert case.mask.path.name == f"ZH-0031_{word}.nii.gz"
    assert case.unclaimed == ()


@pytest.mark.parametrize(
    "word",
    [
        "brain_mask",
        "brainmask",
        "bet_mask",
        "T1_bet_mask",
        "hdbet-mask",
        "brain_segmentation",
        "brain_parenchyma_segmentation",
        "skull_strip_mask",
        "wm_seg",
        "ADC",
        "DTI_eddy_FA",
        "T1_unstripped",
        "t1ce-t1_swi",
        "seg_probabilities",
    ],
)
def test_what_is_known_to_be_no_mask_is_neither_taken_nor_a_candidate(
    tmp_path: Path, word: str
) -> None:
    add_scans(tmp_path, "ZH-0031/ZH-0031_", (*FOUR, word))
    case = only_case(find_cases([tmp_path]))
    assert case.mask is None
    assert case.unclaimed == ()


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ("GlistrBoost_ManuallyCorrected", "GlistrBoost"),
        ("segm", "automated_approx_segm"),
        ("tumorseg_manual_correction", "tumorseg_FeTS"),
        ("seg", "mask"),
        ("GlistrBoost", "mask"),
    ],
)
def test_of_several_masks_the_better_is_taken_and_that_is_said(
    tmp_path: Path, taken: str, left: str
) -> None:
    for case in ("K01", "K02", "K03", "K04"):
        add_scans(tmp_path / "scans", f"{case}/{case}_")
        (tmp_path / "scans" / case / f"{case}_seg.nii.gz").unlink()
        add_scans(tmp_path / "a", f"{case}_", (taken,))
        add_scans(tmp_path / "b", f"{case}_", (left,))
    found = find_cases([tmp_path])
    assert found.faults == ()
    for one in found.cases:
        assert one.mask is not None
        assert one.mask.path.name == f"{one.id}_{taken}.nii.gz"
    notes = [note for note in found.notes if f"{taken}.nii.gz is taken" in note]
    assert len(notes) == 1
    assert notes[0].startswith("4 cases (K01, K02, K03 and 1 more)")


def test_an_automatic_mask_is_taken_for_want_of_another_and_that_is_said(tmp_path: Path) -> None:
    for number in (21, 22):
        case = f"UPENN-GBM-000{number}_11"
        add_scans(tmp_path / "images_structural", f"{case}/{case}_", ("T1", "T1GD", "T2", "FLAIR"))
        add_scans(tmp_path / "automated_segm", f"{case}_", ("automated_approx_segm",))
    found = find_cases([tmp_path])
    assert found.faults == ()
    assert all(case.mask is not None for case in found.cases)
    (note,) = found.notes
    assert note.startswith("2 cases (")
    assert "automatic" in note


def test_two_masks_of_one_kind_are_a_fault(tmp_path: Path) -> None:
    add_scans(tmp_path, "K01/K01_", (*FOUR, "seg", "label"))
    (fault,) = find_cases([tmp_path]).faults
    assert "two different files for mask" in fault.found


def test_a_bare_mask_belongs_to_the_only_case_of_its_folder(tmp_path: Path) -> None:
    add_scans(tmp_path, "UCSF-PDGM-0200_nifti/UCSF-PDGM-0200_", FOUR)
    add_files(tmp_path, "UCSF-PDGM-0200_nifti/segmentation.nii.gz")
    case = only_case(find_cases([tmp_path]))
    assert case.mask is not None
    assert case.mask.path.name == "segmentation.nii.gz"


@pytest.mark.parametrize("name", ["K01_lesionmap", "K01-rater2", "outline", "deep/er/outline_v2"])
def test_a_file_that_no_rule_understands_is_a_candidate(tmp_path: Path, name: str) -> None:
    add_scans(tmp_path, "K01/K01_", FOUR)
    add_scans(tmp_path, "K02/K02_", (*FOUR, "seg"))
    add_files(tmp_path, f"K01/{name}.nii.gz", "K02/K02_lesionmap.nii.gz")
    first, second = find_cases([tmp_path]).cases
    assert first.unclaimed == (tmp_path / "K01" / f"{name}.nii.gz",)
    assert second.unclaimed == ()


def test_candidates_are_found_in_a_tree_of_their_own_by_the_longest_id(tmp_path: Path) -> None:
    for case in ("K1", "K1_2", "K12"):
        add_scans(tmp_path / "scans", f"{case}/{case}_", FOUR)
    add_files(tmp_path / "outlines", "K1_2_rater.nii", "K12.nii.gz", "other.nii")
    unclaimed = {case.id: case.unclaimed for case in find_cases([tmp_path]).cases}
    assert unclaimed == {
        "K1": (),
        "K1_2": (tmp_path / "outlines" / "K1_2_rater.nii",),
        "K12": (tmp_path / "outlines" / "K12.nii.gz",),
    }


def test_a_word_of_the_user_makes_the_mask(tmp_path: Path) -> None:
    add_scans(tmp_path, "K01/K01_", (*FOUR, "seg", "Rater-2"))
    add_scans(tmp_path, "K02/K02_", (*FOUR, "rater2"))
    add_scans(tmp_path, "K03/", (*FOUR, "rater_2"))
    found = find_cases([tmp_path], mask_words=["rater_2"])
    assert found.faults == ()
    names = [case.mask and case.mask.path.name for case in found.cases]
    assert names == ["K01_Rater-2.nii.gz", "K02_rater2.nii.gz", "rater_2.nii.gz"]


def test_a_word_of_the_user_counts_more_than_the_known_ones(tmp_path: Path) -> None:
    add_scans(tmp_path, "K01/K01_", (*FOUR, "brain_mask"))
    assert only_case(find_cases([tmp_path], mask_words=["brain_mask.nii.gz"])).mask is not None


def test_masks_of_other_tools_in_a_folder_of_their_own_are_a_note(tmp_path: Path) -> None:
    for case in ("Subj_7", "Subj_8"):
        add_scans(tmp_path, f"{case}/{case}_")
        tools = ("deepmedic_seg", "nnunet_seg", "fused_staple_seg")
        add_scans(tmp_path, f"{case}/QualityControl/{case}_", tools)
    found = find_cases([tmp_path])
    assert found.faults == ()
    assert len(found.cases) == 2
    (note,) = found.notes
    assert note.startswith("6 masks (")
    assert "match no images" in note


def test_the_same_masks_are_candidates_of_a_case_without_its_own(tmp_path: Path) -> None:
    add_scans(tmp_path, "Subj_7/Subj_7_", FOUR)
    add_scans(tmp_path, "Subj_7/QualityControl/Subj_7_", ("deepmedic_seg", "nnunet_seg"))
    case = only_case(find_cases([tmp_path]))
    assert case.mask is None
    assert [path.name for path in case.unclaimed] == [
        "Subj_7_deepmedic_seg.nii.gz",
        "Subj_7_nnunet_seg.nii.gz",
    ]


def test_without_masks_nothing_about_them_is_a_fault(tmp_path: Path) -> None:
    add_scans(tmp_path, "K01/K01_", (*FOUR, "seg", "label"))
    add_scans(tmp_path, "K02/K02_", FOUR)
    add_scans(tmp_path, "K02/", ("K77_seg",))
    (tmp_path / "K02" / "K02_seg.nii.gz").symlink_to(tmp_path / "nowhere")
    assert len(find_cases([tmp_path]).faults) == 3
    found = find_cases([tmp_path], with_masks=False)
    assert (found.faults, found.notes) == ((), ())
    assert [(case.mask, case.unclaimed) for case in found.cases] == [(None, ())] * 2
