"""Cases are found under every naming of the field, whole or with a reason why not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.common.errors import BratsError
from brats_cache.discovery.cases import find_cases
from brats_cache.discovery.file_names import parse_name
from brats_cache.discovery.namings import MODALITIES
from brats_cache.discovery.patients import patient_of

OLD = ("t1", "t1ce", "t2", "flair")
NEW = ("t1n", "t1c", "t2w", "t2f")


def add_case(
    folder: Path,
    case: str,
    words: tuple[str, ...] = (*OLD, "seg"),
    separator: str = "_",
    suffix: str = ".nii.gz",
) -> Path:
    """A case folder with a file for each role word, each file with content of its own."""
    (folder / case).mkdir(parents=True, exist_ok=True)
    for word in words:
        (folder / case / f"{case}{separator}{word}{suffix}").write_text(f"{folder} {case} {word}")
    return folder / case


@pytest.mark.parametrize(
    ("case", "words", "separator", "naming", "patient"),
    [
        ("brats_2013_pat0003_1", OLD, "_", "brats2013", "brats_2013_pat0003"),
        ("brats_tcia_pat105_0002", OLD, "_", "brats2013", "brats_tcia_pat105"),
        ("Brats17_CBICA_AAB_1", OLD, "_", "brats2017", "Brats17_CBICA_AAB"),
        ("Brats18_TCIA08_406_1", OLD, "_", "brats2017", "Brats18_TCIA08_406"),
        ("BraTS19_2013_10_1", OLD, "_", "brats2017", "BraTS19_2013_10"),
        ("BraTS20_Training_001", OLD, "_", "brats2017", "BraTS20_Training_001"),
        ("BraTS2021_00006", OLD, "_", "brats2017", "BraTS2021_00006"),
        ("BraTS-GLI-00005-101", NEW, "-", "brats2023", "BraTS-GLI-00005"),
        ("BraTS-MET-00011-000", NEW, "-", "brats2023", "BraTS-MET-00011"),
        ("BraTS-PED-00011-000", NEW, "-", "plain", "BraTS-PED-00011"),
        ("TCGA_CS_5393_19990606", OLD, "_", "plain", "TCGA-CS-5393"),
        ("UPENN-GBM-00001_11", ("T1", "T1GD", "T2", "FLAIR"), "_", "plain", "UPENN-GBM-00001"),
        ("sub7", ("t1_pre", "T1_Gd", "T2W", "t2_flair"), "-", "plain", "sub7"),
    ],
)
def test_every_naming_gives_the_same_four_images(
    tmp_path: Path,
    case: str,
    words: tuple[str, ...],
    separator: str,
    naming: str,
    patient: str,
) -> None:
    folder = add_case(tmp_path / "some" / "depth", case, (*words, "SEG"), separator, ".NII")
    found = find_cases([tmp_path])
    assert (found.faults, found.notes) == ((), ())
    (only,) = found.cases
    assert (only.id, only.naming, only.patient) == (case, naming, patient)
    assert list(only.images) == list(MODALITIES)
    files = {
        name: folder / f"{case}{separator}{word}.NII" for name, word in zip(OLD, words, strict=True)
    }
    assert {name: scan.path for name, scan in only.images.items()} == files
    assert only.mask is not None
    assert only.mask.path == folder / f"{case}{separator}SEG.NII"


def test_sessions_of_one_patient_share_it(tmp_path: Path) -> None:
    for case in ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101", "BraTS-GLI-00006-100"):
        add_case(tmp_path, case, (*NEW, "seg"), "-")
    patients = [case.patient for case in find_cases([tmp_path]).cases]
    assert patients == ["BraTS-GLI-00005", "BraTS-GLI-00005", "BraTS-GLI-00006"]


@given(st.permutations(OLD), st.integers(1, 4))
def test_images_stand_in_the_requested_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[str], count: int
) -> None:
    root = tmp_path_factory.mktemp("order")
    add_case(root, "BraTS2021_00001")
    (case,) = find_cases([root], order[:count]).cases
    assert list(case.images) == order[:count]


@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,8}([_-][0-9]{1,4}){1,2}", fullmatch=True),
    st.sampled_from([*OLD, *NEW, "t1gd", "seg"]),
    st.sampled_from(["_", "-"]),
    st.sampled_from([".nii", ".nii.gz", ".NII.GZ"]),
)
def test_a_name_splits_into_the_case_and_the_role(
    case: str, word: str, separator: str, suffix: str
) -> None:
    folder = Path("somewhere")
    lower = parse_name(folder / f"{case}{separator}{word}{suffix}", folder)
    upper = parse_name(folder / f"{case}{separator}{word.upper()}{suffix}", folder)
    assert lower is not None
    assert upper is not None
    assert (lower.case, lower.role) == (case, upper.role)


def test_files_named_by_the_role_alone_take_the_folder_as_case(tmp_path: Path) -> None:
    for word in (*OLD, "seg"):
        (tmp_path / "patient 9").mkdir(exist_ok=True)
        (tmp_path / "patient 9" / f"{word}.nii").touch()
    assert [case.id for case in find_cases([tmp_path]).cases] == ["patient 9"]


def test_a_case_folder_is_a_data_argument_too(tmp_path: Path) -> None:
    first = add_case(tmp_path / "HGG", "Brats18_CBICA_AAB_1")
    second = add_case(tmp_path / "LGG", "Brats18_TCIA10_632_1")
    add_case(tmp_path / "LGG", "Brats18_TCIA10_640_1")
    found = find_cases([second, first])
    assert [(case.id, case.grade, case.data_dir) for case in found.cases] == [
        ("Brats18_CBICA_AAB_1", "HGG", first),
        ("Brats18_TCIA10_632_1", "LGG", second),
    ]


def test_the_misnamed_mask_of_case_355_is_taken_and_said(tmp_path: Path) -> None:
    case = add_case(tmp_path, "BraTS20_Training_355", OLD, suffix=".nii")
    (case / "W39_1998.09.19_Segm.nii").touch()
    found = find_cases([tmp_path])
    assert found.faults == ()
    assert found.cases[0].mask is not None
    assert found.cases[0].mask.path.name == "W39_1998.09.19_Segm.nii"
    assert len(found.notes) == 1
    assert "BraTS20_Training_355" in found.notes[0]
    assert "W39_1998.09.19_Segm.nii" in found.notes[0]


def test_a_strange_mask_is_not_taken_for_the_case_beside_it(tmp_path: Path) -> None:
    case = add_case(tmp_path, "BraTS20_Training_007", OLD)
    (case / "BraTS20_Training_008_seg.nii.gz").touch()
    found = find_cases([tmp_path])
    assert found.cases == ()
    (fault,) = found.faults
    assert fault.case == "BraTS20_Training_007"
    assert "BraTS20_Training_008_seg.nii.gz" in fault.found


def test_a_missing_modality_names_case_found_and_expected(tmp_path: Path) -> None:
    add_case(tmp_path, "BraTS2021_00001")
    folder = add_case(tmp_path, "BraTS2021_00002", ("t1", "flair", "seg"))
    (folder / "odd.nii.gz").touch()
    found = find_cases([tmp_path])
    assert [case.id for case in found.cases] == ["BraTS2021_00001"]
    (fault,) = found.faults
    assert (fault.case, fault.path) == ("BraTS2021_00002", folder)
    assert "no t1ce, t2" in fault.found
    for name in ("BraTS2021_00002_flair.nii.gz", "odd.nii.gz"):
        assert name in fault.found
    assert "*_t1ce.nii.gz" in fault.expected
    assert "--modalities t1,flair" in fault.remedy
    assert len(find_cases([tmp_path], ("flair", "t1")).cases) == 2


def test_two_files_for_one_role_are_a_fault_that_names_both(tmp_path: Path) -> None:
    folder = add_case(tmp_path, "BraTS2021_00001")
    (folder / "BraTS2021_00001_t1.nii").write_text("another")
    (fault,) = find_cases([tmp_path]).faults
    assert "BraTS2021_00001_t1.nii " in f"{fault} "
    assert "BraTS2021_00001_t1.nii.gz" in str(fault)
    assert find_cases([tmp_path], ("t2",)).faults == ()


def test_one_id_with_different_files_is_a_fault_that_names_both(tmp_path: Path) -> None:
    first = add_case(tmp_path / "a", "001")
    second = add_case(tmp_path / "b", "001")
    found = find_cases([tmp_path / "a", tmp_path / "b"])
    assert found.cases == ()
    (fault,) = found.faults
    assert str(first) in str(fault)
    assert str(second) in str(fault)


def test_one_id_with_equal_files_is_one_case(tmp_path: Path) -> None:
    first = add_case(tmp_path / "a", "001")
    for path in first.iterdir():
        copy = tmp_path / "b" / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    found = find_cases([tmp_path / "b", tmp_path / "a"])
    assert found.faults == ()
    assert [case.data_dir for case in found.cases] == [tmp_path / "b"]
    assert any("twice" in note for note in found.notes)


def test_a_folder_given_twice_in_other_words_is_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_case(tmp_path / "data", "001")
    monkeypatch.chdir(tmp_path)
    found = find_cases([Path("data"), tmp_path / "data", tmp_path, Path("data/001")])
    assert len(found.cases) == 1
    assert (found.faults, found.notes) == ((), ())


def test_masks_may_lie_in_a_tree_of_their_own(tmp_path: Path) -> None:
    add_case(tmp_path / "images", "UPENN-GBM-00001_11", ("T1", "T1GD", "T2", "FLAIR"))
    add_case(tmp_path / "masks", "UPENN-GBM-00001_11", ("segm",))
    found = find_cases([tmp_path / "masks", tmp_path / "images"])
    assert found.faults == ()
    assert found.cases[0].data_dir == tmp_path / "images"
    assert found.cases[0].mask is not None


def test_what_fits_no_case_is_noted_and_litter_is_not(tmp_path: Path) -> None:
    folder = add_case(tmp_path, "UCSF-PDGM-0004", (*OLD, "tumor_segmentation"))
    for name in ("UCSF-PDGM-0004_ADC.nii.gz", "UCSF-PDGM-0004_brain_segmentation.nii.gz"):
        (folder / name).touch()
    for name in ("._UCSF-PDGM-0004_t1.nii.gz", ".hidden_t1.nii", "__MACOSX/x_t1.nii", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    found = find_cases([tmp_path])
    assert found.faults == ()
    assert [case.id for case in found.cases] == ["UCSF-PDGM-0004"]
    (note,) = found.notes
    assert note.startswith("2 NIfTI files")
    assert "_ADC.nii.gz" in note
    assert "_brain_segmentation.nii.gz" in note


def test_folders_that_hold_nothing_are_faults(tmp_path: Path) -> None:
    for name in ("empty", "raw", "unnamed"):
        (tmp_path / name).mkdir()
    (tmp_path / "raw" / "VSD.Brain.XX.O.MR_T1.54513.mha").touch()
    (tmp_path / "unnamed" / "scan.nii").touch()
    (tmp_path / "file").touch()
    names = ("absent", "file", "empty", "raw", "unnamed")
    found = find_cases([tmp_path / name for name in names])
    assert found.cases == ()
    assert [fault.path for fault in found.faults] == [tmp_path / name for name in names]
    assert ".mha" in found.faults[3].found
    assert "scan.nii" in found.faults[4].found


@pytest.mark.parametrize("modalities", [(), ("t1", "t1"), ("t1", "pet")])
def test_modalities_that_cannot_be_are_refused(tmp_path: Path, modalities: tuple[str, ...]) -> None:
    with pytest.raises(BratsError, match="t1,t1ce,t2,flair"):
        find_cases([tmp_path], modalities)


def test_links_are_followed_once_and_dangling_ones_named(tmp_path: Path) -> None:
    store = add_case(tmp_path / "store", "BraTS2021_00001")
    data = tmp_path / "data"
    add_case(data / "HGG", "BraTS2021_00002")
    (data / "0_linked").symlink_to(store)
    (data / "HGG" / "loop").symlink_to(data)
    (data / "A_other_way_in").symlink_to(data / "HGG")
    (data / "self").symlink_to(data / "self")
    found = find_cases([data])
    assert (found.faults, found.notes) == ((), ())
    assert [(case.id, case.grade) for case in found.cases] == [
        ("BraTS2021_00001", ""),
        ("BraTS2021_00002", "HGG"),
    ]
    (data / "BraTS2021_00003_t1.nii").symlink_to(tmp_path / "nowhere")
    (fault,) = find_cases([data]).faults
    assert fault.path == data / "BraTS2021_00003_t1.nii"


def test_order_does_not_depend_on_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (30, 4, 100, 21):
        add_case(tmp_path / f"part{number % 3}", f"BraTS2021_{number:05d}")
    for folder in ("part0", "part1"):
        (tmp_path / folder / "BraTS2021_00007_t1.nii").write_text("equal")
        (tmp_path / folder / "odd.nii").touch()
    expected = find_cases([tmp_path], ("t1",))
    assert [case.id[-3:] for case in expected.cases] == ["004", "007", "021", "030", "100"]
    assert len(expected.notes) == 2
    real = os.scandir

    class Reversed:
        """A directory listing in the opposite order."""

        def __init__(self, folder: Path) -> None:
            with real(folder) as listing:
                self.entries = list(listing)[::-1]

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert find_cases([tmp_path], ("t1",)) == expected


def test_grade_comes_from_the_table_before_the_folder(tmp_path: Path) -> None:
    for grade, case in (("HGG", "BraTS19_A_1_1"), ("LGG", "BraTS19_A_2_1"), ("", "BraTS19_A_3_1")):
        add_case(tmp_path / grade, case)
    table = "Grade,BraTS_2019_subject_ID\nHGG,BraTS19_A_1_1\nHGG,BraTS19_A_2_1\nLGG,BraTS19_A_3_1\n"
    (tmp_path / "name_mapping.csv").write_text(table)
    (tmp_path / "survival_data.csv").write_text(
        "BraTS19ID,Age,Survival,ResectionStatus\nBraTS19_A_1_1,60.5,ALIVE (361 days later),GTR\n"
    )
    found = find_cases([tmp_path])
    assert [case.grade for case in found.cases] == ["HGG", "HGG", "LGG"]
    assert (found.cases[0].age, found.cases[0].survival) == (60.5, "ALIVE (361 days later)")
    assert (found.cases[1].age, found.cases[1].survival) == (None, "")
    (note,) = found.notes
    assert "BraTS19_A_2_1" in note


def test_one_person_of_two_years_is_one_patient(tmp_path: Path) -> None:
    add_case(tmp_path / "2018", "Brats18_CBICA_AAB_1")
    add_case(tmp_path / "2020", "BraTS20_Training_001")
    found = find_cases([tmp_path])
    assert len({case.patient for case in found.cases}) == 2
    (note,) = found.notes
    assert "BraTS 2018 and BraTS 2020" in note
    (tmp_path / "2020" / "name_mapping.csv").write_text(
        "Grade,BraTS_2018_subject_ID,BraTS_2020_subject_ID\n"
        "HGG,Brats18_CBICA_AAB_1,BraTS20_Training_001\n"
    )
    found = find_cases([tmp_path])
    assert {case.patient for case in found.cases} == {"BraTS20_Training_001"}
    assert found.notes == ()


@given(st.from_regex(r"BraTS-(GLI|MET|MEN)-[0-9]{5}", fullmatch=True), st.integers(0, 999))
def test_the_session_is_no_part_of_the_patient(patient: str, session: int) -> None:
    assert patient_of(f"{patient}-{session:03d}") == patient


@pytest.mark.parametrize(
    ("folder", "modalities", "num_cases", "naming", "grade"),
    [
        ("brats2015", ("flair", "t1ce"), 4, "brats2013", ""),
        ("brats2021", MODALITIES, 1, "brats2017", ""),
        ("brats2023", MODALITIES, 1, "brats2023", ""),
        ("lgg", ("t1", "flair", "t1ce"), 12, "plain", "LGG"),
    ],
)
def test_real_cases(
    real_data: Path,
    folder: str,
    modalities: tuple[str, ...],
    num_cases: int,
    naming: str,
    grade: str,
) -> None:
    found = find_cases([real_data / folder], modalities)
    assert (found.faults, found.notes) == ((), ())
    assert len({case.patient for case in found.cases}) == num_cases
    for case in found.cases:
        assert (case.naming, case.grade) == (naming, grade)
        assert tuple(case.images) == modalities
        assert case.mask is not None
        for scan in (*case.images.values(), case.mask):
            assert scan.path.parent == real_data / folder / case.id


def test_accents_as_a_mac_writes_them_are_the_same_name(tmp_path: Path) -> None:
    """A zip file of macOS holds "e" and its accent as two characters, a mask made elsewhere one."""
    composed, decomposed = "Jos\u00e9", "Jose\u0301"
    add_case(tmp_path / "scans", decomposed, OLD)
    add_case(tmp_path / "masks", composed, ("seg",))
    (case,) = find_cases([tmp_path]).cases
    assert case.id == case.patient == composed
    assert case.mask is not None
    add_case(tmp_path / "again", composed, OLD)
    (fault,) = find_cases([tmp_path]).faults
    assert "one id with different files" in fault.found
    for word in OLD:
        bare = tmp_path / "bare" / decomposed / f"{word}.nii"
        bare.parent.mkdir(parents=True, exist_ok=True)
        bare.write_text(word)
    assert find_cases([tmp_path / "bare"]).cases[0].id == composed


def test_one_patient_however_its_id_is_spelled(tmp_path: Path) -> None:
    for case in ("Pat01_week-1", "pat01_week-2", "PAT01_week-3", "Pat02_week-1"):
        add_case(tmp_path, case, OLD)
    patients = [case.patient for case in find_cases([tmp_path]).cases]
    assert sorted(set(patients)) == ["PAT01", "Pat02"]
