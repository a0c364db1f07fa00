"""One person is one patient, whatever the sessions are called; where names leave it open, a
warning says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.discovery.cases import find_cases
from brats_cache.discovery.patients import patient_of
from tests.cache.discovery.trees import add_scans, patients


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("UCSF-PDGM-0482", "UCSF-PDGM-0482"),
        ("UCSF-PDGM-0482_FU101d", "UCSF-PDGM-0482"),
        ("UCSF-PDGM-482", "UCSF-PDGM-0482"),
        ("UPENN-GBM-00070_21", "UPENN-GBM-00070"),
        ("UCSD-PTGBM-0033_02", "UCSD-PTGBM-0033"),
        ("RHUH-0017_2", "RHUH-0017"),
        ("PatientID_0199_Timepoint_5", "PatientID_0199"),
        ("100045_time2", "100045"),
        ("100414B", "100414"),
        ("BraTS-MEN-RT-0311-1", "BraTS-MEN-RT-0311"),
        ("BraTS-GoAT-00811", "BraTS-GoAT-00811"),
        ("BraTS-PED-00301-000", "BraTS-PED-00301"),
        ("TCGA-06-0148_1999.11.30", "TCGA-06-0148"),
        ("sub-Z9_ses-early", "sub-Z9"),
        ("Patient-055_week-007-1", "Patient-055"),
        ("GL017-visit-03", "GL017"),
        ("GL017_2011-05-30", "GL017"),
        ("GL017_20110530", "GL017"),
        ("GL017_followup", "GL017"),
        ("GL017_preop", "GL017"),
        ("patient_20110530", "patient_20110530"),
        ("case_visit2", "case_visit2"),
        ("site4-017", "site4-017"),
        ("BraTS20_Training_017", "BraTS20_Training_017"),
    ],
)
def test_sessions_are_no_part_of_the_patient(case: str, patient: str) -> None:
    assert patient_of(case) == patient


@given(
    st.from_regex(r"[A-Z]{2,6}-[0-9]{3,5}", fullmatch=True),
    st.sampled_from(["_", "-", "."]),
    st.sampled_from(["week-{:03d}", "ses{}", "Timepoint_{}", "FU{:03d}d", "visit{}", "TP{}"]),
    st.integers(1, 99),
)
def test_two_sessions_of_any_id_are_one_patient(
    person: str, separator: str, word: str, number: int
) -> None:
    assert patient_of(f"{person}{separator}{word.format(number)}") == patient_of(person)


@pytest.mark.parametrize(
    "places",
    [
        ("MR-{p:03d}/week-{s:03d}/",),
        ("MR-{p:03d}/2014-0{s}-11/",),
        ("MR-{p:03d}/{s}/",),
        ("MR-{p:03d}/baseline/", "MR-{p:03d}/follow-up/"),
        ("MR-{p:03d}/ses-{s}/anat/",),
        ("deep/er/MR-{p:03d}/tp{s}/MR-{p:03d}_tp{s}_",),
    ],
)
def test_session_folders_under_a_patient_folder_are_one_patient(
    tmp_path: Path, places: tuple[str, ...]
) -> None:
    for person in (1, 2, 3):
        for session in (1, 2):
            for place in places:
                add_scans(tmp_path, place.format(p=person, s=session))
    found = find_cases([tmp_path])
    assert found.notes == ()
    people = patients(found)
    assert len(people) >= 6
    assert all(case.startswith(person) for case, person in people.items())
    assert set(people.values()) == {"MR-001", "MR-002", "MR-003"}


def test_numbered_folders_of_a_set_are_patients_of_their_own(tmp_path: Path) -> None:
    for number in range(12):
        add_scans(tmp_path / "cohort", f"{number}/")
    assert len(set(patients(find_cases([tmp_path])).values())) == 12


@pytest.mark.parametrize(
    "ids",
    [
        ("AB12_x", "AB12_y", "AB13_x", "AB13_y"),
        ("AB12", "AB12_2", "AB13"),
        ("AB12a", "AB12b", "AB13a"),
        ("G-001-1", "G-001-2", "G-002-1", "G-002-2"),
    ],
)
def test_ids_that_share_a_stem_draw_one_warning(tmp_path: Path, ids: tuple[str, ...]) -> None:
    for case in ids:
        add_scans(tmp_path, f"{case}/{case}_")
    found = find_cases([tmp_path])
    assert len(set(patients(found).values())) == len(ids)
    (note,) = found.notes
    assert f"{ids[0]} and {ids[1]}" in note
    assert "`patient`" in note
    assert "--manifest" in note


def test_folders_that_share_a_parent_draw_one_warning(tmp_path: Path) -> None:
    for person in ("kurt", "mary", "lena"):
        for scan in ("first", "second"):
            add_scans(tmp_path, f"{person}/{scan}{person}/")
    (note,) = find_cases([tmp_path]).notes
    assert note.startswith("6 cases count as different patients")


@pytest.mark.parametrize(
    "ids",
    [
        [f"site4-{number:03d}" for number in range(30)],
        [f"case_{number:03d}" for number in range(4)],
        [f"BraTS2021_{number:05d}" for number in range(4)],
        [f"BraTS-GLI-{number:05d}-10{k}" for number in range(3) for k in range(2)],
        [f"UCSF-PDGM-{number:04d}{s}" for number in range(3) for s in ("", "_FU003d")],
    ],
)
def test_ordinary_sets_draw_none(tmp_path: Path, ids: list[str]) -> None:
    for case in ids:
        add_scans(tmp_path, f"{case}/{case}_", ("t1",))
    assert find_cases([tmp_path], ("t1",)).notes == ()


def test_the_table_of_ucsf_pdgm_joins_it_with_brats_2021(tmp_path: Path) -> None:
    for case in ("UCSF-PDGM-0061", "UCSF-PDGM-0062", "UCSF-PDGM-0063"):
        add_scans(tmp_path / "ucsf", f"{case}_nifti/{case}_")
    add_scans(tmp_path / "brats", "BraTS2021_00777/BraTS2021_00777_")
    (note,) = find_cases([tmp_path]).notes
    assert "BraTS 2021 and UCSF-PDGM" in note
    (tmp_path / "ucsf" / "UCSF-PDGM-metadata_v5.csv").write_text(
        "ID,Sex,WHO CNS Grade,BraTS21 ID,BraTS21 Segmentation Cohort\n"
        "UCSF-PDGM-061,M,4,BraTS2021_00777,Training\n"
        "UCSF-PDGM-062,F,4,,\n"
        "UCSF-PDGM-063,F,3,NA,NA\n"
    )
    (tmp_path / "brats" / "BraTS21-17_Mapping.csv").write_text(
        "BraTS2021,Data Collection\nBraTS2021_00777,UCSF-PDGM\nBraTS2021_00778,\n"
    )
    found = find_cases([tmp_path])
    assert found.notes == ()
    assert patients(found) == {
        "BraTS2021_00777": "BraTS2021_00777",
        "UCSF-PDGM-0061": "BraTS2021_00777",
        "UCSF-PDGM-0062": "UCSF-PDGM-0062",
        "UCSF-PDGM-0063": "UCSF-PDGM-0063",
    }
