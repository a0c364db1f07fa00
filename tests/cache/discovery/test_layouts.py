"""Layouts of public sets and of other people's folders give the cases that they mean."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brats_cache.discovery.cases import find_cases
from brats_cache.discovery.file_names import parse_name
from tests.cache.discovery.trees import FOUR, add_files, add_scans, only_case


@pytest.mark.parametrize(
    ("word", "role"),
    [
        ("CT1", "t1ce"),
        ("T1Gd", "t1ce"),
        ("T1c_bias", "t1ce"),
        ("T1-post-contrast", "t1ce"),
        ("T2-FLAIR", "flair"),
        ("fla", "flair"),
        ("T2w_FLAIR", "flair"),
        ("FLAIR-biascorr", "flair"),
        ("brain_t1n", "t1"),
        ("T1_pre", "t1"),
        ("T2_N4", "t2"),
    ],
)
def test_words_of_modalities(word: str, role: str) -> None:
    for path, case in ((Path(f"x/ab-12_{word}.nii"), "ab-12"), (Path(f"x/{word}.nii.gz"), "x")):
        parsed = parse_name(path, Path("x"))
        assert parsed is not None
        assert (parsed.case, parsed.role) == (case, role)


@pytest.mark.parametrize("case", ["c", "ce", "gd", "pre", "P_pre"])
def test_a_short_case_id_is_no_part_of_the_modality(case: str) -> None:
    for word, role in (("t1", "t1"), ("T1w", "t1"), ("ct1", "t1ce"), ("fla", "flair")):
        parsed = parse_name(Path(f"x/{case}_{word}.nii"), Path("x"))
        assert parsed is not None
        assert (parsed.case, parsed.role) == (case, role)


@pytest.mark.parametrize("word", ["t1ce-t1", "T1_T2", "T1_biasfield", "t2star", "T1map", "x_T10"])
def test_what_only_looks_like_a_modality_is_none(word: str) -> None:
    assert parse_name(Path(f"x/ab-12_{word}.nii"), Path("x")) is None


def test_scans_wrapped_in_folders_go_by_the_name_of_the_folder(tmp_path: Path) -> None:
    case = "BraTS2021_01666/BraTS2021_01666"
    add_files(
        tmp_path,
        *(f"{case}_{word}.nii/00001703_brain_{word}.nii" for word in FOUR),
        f"{case}_seg.nii/00001703_final_seg.nii",
    )
    found = only_case(find_cases([tmp_path]))
    assert found.id == "BraTS2021_01666"
    assert found.images["t1ce"].path.name == "00001703_brain_t1ce.nii"
    assert found.mask is not None
    assert found.mask.path.name == "00001703_final_seg.nii"


def test_a_wrapping_folder_needs_no_suffix_and_its_file_no_telling_name(tmp_path: Path) -> None:
    case = "Brats18_X_7_1/Brats18_X_7_1"
    add_files(tmp_path, *(f"{case}_{word}/{k}.nii" for k, word in enumerate((*FOUR, "seg"))))
    found = only_case(find_cases([tmp_path]))
    assert [found.images[name].path.name for name in FOUR] == ["0.nii", "1.nii", "2.nii", "3.nii"]


def test_a_wrapping_folder_with_two_files_is_a_fault(tmp_path: Path) -> None:
    add_scans(tmp_path, "c1/c1_")
    add_files(tmp_path, "c2/c2_t1.nii.gz/a.nii", "c2/c2_t1.nii.gz/b.nii")
    (fault,) = find_cases([tmp_path]).faults
    assert fault.path == tmp_path / "c2" / "c2_t1.nii.gz"
    assert "2 files" in fault.found


def test_session_folders_that_recur_enter_the_id_with_their_parent(tmp_path: Path) -> None:
    for patient in ("S-11", "S-12", "S-13"):
        for session in ("visit-1", "visit-2"):
            add_scans(tmp_path / "set", f"{patient}/{session}/")
    found = find_cases([tmp_path / "set"])
    assert (found.faults, found.notes) == ((), ())
    assert {case.id: case.patient for case in found.cases} == {
        f"{patient}_{session}": patient
        for patient in ("S-11", "S-12", "S-13")
        for session in ("visit-1", "visit-2")
    }
    alone = only_case(find_cases([tmp_path / "set" / "S-12" / "visit-2"]))
    assert (alone.id, alone.patient) == ("S-12_visit-2", "S-12")


def test_files_named_after_their_session_folder_are_told_apart_too(tmp_path: Path) -> None:
    for patient in ("P07", "P08"):
        add_scans(tmp_path, f"{patient}/week-012/week-012_")
    found = find_cases([tmp_path])
    assert [case.id for case in found.cases] == ["P07_week-012", "P08_week-012"]


def test_files_named_after_the_patient_alone_take_in_their_session_folder(tmp_path: Path) -> None:
    for person in ("sub-21", "sub-22"):
        for session in ("ses-1", "ses-2"):
            words = ("T1w", "ce-gad_T1w", "T2w", "FLAIR")
            add_scans(tmp_path, f"{person}/{session}/anat/{person}_", words)
            place = f"derivatives/hand/{person}/{session}/anat/{person}_"
            add_scans(tmp_path, place, ("desc-lesion_dseg",))
    found = find_cases([tmp_path])
    assert (found.faults, found.notes) == ((), ())
    people = [(case.id, case.patient) for case in found.cases]
    assert people == [
        (f"{person}_{session}", person)
        for person in ("sub-21", "sub-22")
        for session in ("ses-1", "ses-2")
    ]
    assert all(case.mask and case.id[-5:] in str(case.mask.path) for case in found.cases)


def test_any_folder_name_that_recurs_takes_in_its_parent(tmp_path: Path) -> None:
    for ward in ("north", "south"):
        for name in ("alpha", "beta"):
            add_scans(tmp_path, f"{ward}/{name}/")
    add_scans(tmp_path, "north/gamma/")
    found = find_cases([tmp_path])
    assert found.faults == ()
    ids = [case.id for case in found.cases]
    assert ids == ["gamma", "north_alpha", "north_beta", "south_alpha", "south_beta"]
    for case in found.cases:
        assert case.mask is not None
        assert {scan.path.parent for scan in case.images.values()} == {case.mask.path.parent}


def test_copies_of_a_folder_are_one_case_still(tmp_path: Path) -> None:
    add_scans(tmp_path, "one/alpha/")
    for path in (tmp_path / "one" / "alpha").iterdir():
        copy = tmp_path / "two" / "alpha" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    found = find_cases([tmp_path])
    assert only_case(found).id == "alpha"
    assert any("twice" in note for note in found.notes)


@pytest.mark.parametrize(
    "layout",
    ["EGD-0412/1_T1/NIFTI/T1.nii.gz EGD-0412/2_T1GD/NIFTI/T1GD.nii.gz EGD-0412/3_T2/T2.nii.gz "
     "EGD-0412/4_FLAIR/NIFTI/FLAIR.nii.gz EGD-0412/5_MASK/NIFTI/MASK.nii.gz",
     "EGD-0412/anat/t1.nii EGD-0412/anat/t1c.nii EGD-0412/anat/t2.nii EGD-0412/anat/fla.nii "
     "EGD-0412/segmentation/seg.nii"],
)  # fmt: skip
def test_folders_inside_a_case_are_not_its_name(tmp_path: Path, layout: str) -> None:
    add_files(tmp_path, *layout.split())
    case = only_case(find_cases([tmp_path]))
    assert case.id == "EGD-0412"
    assert case.mask is not None


def test_brats_2015_as_downloaded(tmp_path: Path) -> None:
    names = ["XX.O.MR_T1.9", "XX.O.MR_T1c.10", "XX.O.MR_T2.11", "XX.O.MR_Flair.12"]
    folder = "HGG/brats_tcia_pat222_0001"
    add_files(tmp_path, *(f"{folder}/VSD.Brain.{name}/VSD.Brain.{name}.nii" for name in names))
    add_files(tmp_path, f"{folder}/VSD.Brain_3more.XX.O.OT.13/VSD.Brain_3more.XX.O.OT.13.nii")
    case = only_case(find_cases([tmp_path]))
    assert (case.id, case.naming, case.grade) == ("brats_tcia_pat222_0001", "brats2013", "HGG")
    assert case.mask is not None


def test_scans_corrected_for_the_bias_field_come_first_and_that_is_said(tmp_path: Path) -> None:
    for number in (11, 12, 13, 14):
        case = f"UCSF-PDGM-00{number}"
        words = ("T1", "T1c", "T2", "FLAIR", "T1_bias", "T1c_bias", "T2_bias", "FLAIR_bias")
        others = ("SWI", "DTI_eddy_FA", "brain_segmentation", "brain_parenchyma_segmentation")
        add_scans(tmp_path, f"{case}_nifti/{case}_", (*words, "tumor_segmentation", *others))
    found = find_cases([tmp_path])
    assert found.faults == ()
    assert len(found.cases) == 4
    for case in found.cases:
        assert case.images["t1ce"].path.name == f"{case.id}_T1c_bias.nii.gz"
        assert case.mask is not None
        assert case.mask.path.name == f"{case.id}_tumor_segmentation.nii.gz"
    (note,) = [note for note in found.notes if "bias field" in note]
    assert note.startswith("4 cases (")
    assert "and 1 more" in note


def test_a_file_beside_its_own_archive_is_one_file(tmp_path: Path) -> None:
    add_scans(tmp_path, "c9/c9_", ())
    for word in (*FOUR, "seg"):
        content = f"voxels of {word}".encode() * 100
        (tmp_path / "c9").mkdir(exist_ok=True)
        (tmp_path / "c9" / f"c9_{word}.nii").write_bytes(content)
        (tmp_path / "c9" / f"c9_{word}.nii.gz").write_bytes(gzip.compress(content))
    found = find_cases([tmp_path])
    assert only_case(found).id == "c9"
    (note,) = found.notes
    assert note.startswith("5 files (")
    other = gzip.compress(b"VOXELS of t2" + b"voxels of t2" * 99)
    (tmp_path / "c9" / "c9_t2.nii.gz").write_bytes(other)
    (fault,) = find_cases([tmp_path]).faults
    assert "two different files for t2" in fault.found


def test_equal_notes_of_many_cases_are_one_line(tmp_path: Path) -> None:
    table = ["Grade,BraTS_2019_subject_ID"]
    for number in range(6):
        add_scans(tmp_path / "LGG", f"BraTS19_B_{number}_1/BraTS19_B_{number}_1_")
        table.append(f"HGG,BraTS19_B_{number}_1")
    (tmp_path / "name_mapping.csv").write_text("\n".join(table))
    (note,) = find_cases([tmp_path]).notes
    assert note.startswith("6 cases (BraTS19_B_0_1, BraTS19_B_1_1, BraTS19_B_2_1 and 3 more)")


def test_a_locale_that_cannot_say_a_name_is_blamed_and_not_the_name(tmp_path: Path) -> None:
    for number in (1, 2):
        add_scans(tmp_path / "Größe", f"BraTS2021_0000{number}/BraTS2021_0000{number}_")
    script = (
        "import sys; from pathlib import Path; from brats_cache.discovery.cases import find_cases\n"
        "print(ascii([str(f) for f in find_cases([Path(sys.argv[1])]).faults]))"
    )
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script, os.fsencode(tmp_path)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (fault,) = eval(done.stdout)
    assert "locale" in fault
    assert "LC_ALL=C.UTF-8" in fault
    assert "not UTF-8" not in fault


def test_a_name_that_is_no_utf8_is_still_its_own_fault(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9-1")
    add_scans(folder, "")
    (fault,) = find_cases([tmp_path]).faults
    assert "not UTF-8" in fault.found


def test_lumiere_takes_the_scans_of_the_session_and_leaves_other_tools_aside(
    tmp_path: Path,
) -> None:
    session = "Imaging/Patient-044/week-031-2"
    tools = (
        "DeepBraTumIA-segmentation/atlas/segmentation/seg_mask",
        "DeepBraTumIA-segmentation/atlas/skull_strip/brain_mask",
        "DeepBraTumIA-segmentation/atlas/skull_strip/ct1_skull_strip",
        "HD-GLIO-AUTO-segmentation/native/segmentation_CT1_origspace",
        "HD-GLIO-AUTO-segmentation/registered/CT1_r2s_bet_reg",
        "HD-GLIO-AUTO-segmentation/registered/segmentation",
    )
    add_scans(tmp_path, f"{session}/", ("T1", "CT1", "T2", "FLAIR", *tools))
    case = only_case(find_cases([tmp_path]))
    assert (case.id, case.patient) == ("Patient-044_week-031-2", "Patient-044")
    assert case.images["t1ce"].path == tmp_path / session / "CT1.nii.gz"
    assert case.mask is None
    names = {path.name for path in case.unclaimed}
    assert {"seg_mask.nii.gz", "segmentation.nii.gz"} <= names
    assert "brain_mask.nii.gz" not in names
