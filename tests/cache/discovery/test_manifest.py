"""A manifest names the files of every case; what is wrong with it is told by line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_cache.common.errors import BratsError
from brats_cache.discovery.cases import find_cases
from brats_cache.discovery.manifest import MANIFEST_COLUMNS, manifest_table, read_manifest
from tests.cache.discovery.trees import FOUR, add_files, add_scans, only_case

HEADER = "case,t1,t1ce,t2,flair"


def write(folder: Path, *lines: str, name: str = "cases.csv") -> Path:
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def row(case: str, *more: str) -> str:
    return ",".join([case, *(f"{case}/{name}.nii" for name in FOUR), *more])


def add(folder: Path, *cases: str) -> None:
    for case in cases:
        add_files(folder, *(f"{case}/{name}.nii" for name in (*FOUR, "m")))


def test_paths_are_relative_to_the_table_and_columns_may_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(tmp_path, "b", "a")
    path = write(tmp_path, HEADER, row("b"), row("a"))
    monkeypatch.chdir(tmp_path / "a")
    found = read_manifest(path)
    assert (found.faults, found.notes) == ((), ())
    assert [case.id for case in found.cases] == ["a", "b"]
    first = found.cases[0]
    assert list(first.images) == list(FOUR)
    assert first.images["t2"].path == tmp_path / "a" / "t2.nii"
    assert (first.mask, first.patient, first.split, first.scheme, first.grade) == (
        None, "a", "", "", "",
    )  # fmt: skip
    assert list(read_manifest(path, ("flair", "t1")).cases[0].images) == ["flair", "t1"]


def test_every_column_is_honoured(tmp_path: Path) -> None:
    add(tmp_path, "x1")
    elsewhere = add_files(tmp_path / "other", "truth.img.nii") / "truth.img.nii"
    path = write(
        tmp_path,
        "Case,Patient,Session,T1,T1ce,T2,FLAIR,Seg,Split,Grade,Scheme",
        f"x1,Ada,2,x1/t1.nii,x1/t1ce.nii,x1/t2.nii,x1/flair.nii,{elsewhere},VAL,hgg,brats2023",
    )
    case = only_case(read_manifest(path))
    assert case.mask is not None
    assert case.mask.path == elsewhere
    assert (case.patient, case.split, case.grade, case.scheme) == ("Ada", "val", "HGG", "brats2023")
    assert read_manifest(path, with_masks=False).cases[0].mask is None


def test_patient_and_session_make_the_id_where_there_is_none(tmp_path: Path) -> None:
    add(tmp_path, "x1", "x2")
    path = write(
        tmp_path,
        "patient,session,t1",
        "Ada,1,x1/t1.nii",
        "Ada,2,x2/t1.nii",
    )
    found = read_manifest(path, ("t1",))
    assert [(case.id, case.patient) for case in found.cases] == [("Ada_1", "Ada"), ("Ada_2", "Ada")]
    assert found.notes == ()


def test_a_patient_is_one_however_its_cells_spell_it(tmp_path: Path) -> None:
    """Else one person could train and validate."""
    add(tmp_path, "x1", "x2", "x3")
    lines = ("a,Ren\u00e9,x1/t1.nii", "b,RENE\u0301,x2/t1.nii", "c,Ada,x3/t1.nii")
    cases = read_manifest(write(tmp_path, "case,patient,t1", *lines), ("t1",)).cases
    assert [case.patient for case in cases] == ["Ren\u00e9", "Ren\u00e9", "Ada"]


def test_a_volume_of_a_4d_file_is_named_by_its_index(tmp_path: Path) -> None:
    add_files(tmp_path, "all.nii.gz", "odd#7.nii")
    path = write(tmp_path, "case,t1,t1ce,t2", "k,all.nii.gz#1,all.nii.gz#0,odd#7.nii")
    case = only_case(read_manifest(path, ("t1", "t1ce", "t2")))
    assert [(scan.path.name, scan.channel) for scan in case.images.values()] == [
        ("all.nii.gz", 1),
        ("all.nii.gz", 0),
        ("odd#7.nii", None),
    ]


def test_a_mask_is_a_file_of_its_own(tmp_path: Path) -> None:
    """The truth is read again from its file, of which a cache holds the name alone."""
    add_files(tmp_path, "t1.nii", "masks.nii.gz")
    path = write(tmp_path, "case,t1,seg", "k,t1.nii,masks.nii.gz#1")
    (fault,) = read_manifest(path, ("t1",)).faults
    assert "line 2, column seg: masks.nii.gz#1, a volume of a 4-D file" in fault.found


@pytest.mark.parametrize(
    ("line", "where", "what"),
    [
        ("b,b/t1.nii,b/t1ce.nii,b/t2.nii,b/absent.nii,,", "line 3, column flair", "b/absent.nii"),
        ("b,b/t1.nii,b/t1ce.nii,,b/flair.nii,,", "line 3, column t2", "blank"),
        ("b,b/t1.nii,b/t1ce.nii,b/t2.nii,b,,", "line 3, column flair", "b"),
        (",b/t1.nii,b/t1ce.nii,b/t2.nii,b/flair.nii,,", "line 3, column case", "blank"),
        ("A,b/t1.nii,b/t1ce.nii,b/t2.nii,b/flair.nii,,", "line 3, column case", "line 2"),
        ("b,b/t1.nii,b/t1ce.nii,b/t2.nii,b/t1.nii,,", "line 3, column flair", "column t1"),
        ("b,b/t1.nii,b/t1ce.nii,b/t2.nii,a/flair.nii,,", "line 3, column flair", "line 2"),
        ("b,b/t1.nii,b/t1ce.nii,b/t2.nii,b/flair.nii,dev,", "line 3, column split", "dev"),
        ("b,b/t1.nii,b/t1ce.nii,b/t2.nii,b/flair.nii,,IV", "line 3, column grade", "IV"),
    ],
)
def test_a_cell_that_cannot_be_used_is_named(
    tmp_path: Path, line: str, where: str, what: str
) -> None:
    add(tmp_path, "a", "b")
    path = write(tmp_path, f"{HEADER},split,grade", row("a", "", ""), line)
    found = read_manifest(path)
    assert "b" not in [case.id for case in found.cases]
    (fault,) = found.faults
    assert fault.path == path
    assert fault.found.startswith(where)
    assert what in fault.found


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (f"{HEADER},age", "age"),
        ("case,t1,t1ce,t2", "flair"),
        ("t1,t1ce,t2,flair", "case"),
        ("case,case,t1,t1ce,t2,flair", "line 1"),
    ],
)
def test_columns_that_are_unknown_or_missing_are_named(
    tmp_path: Path, header: str, what: str
) -> None:
    path = write(tmp_path, header, ",".join("x" for _ in header.split(",")))
    faults = read_manifest(path).faults
    assert any(what in fault.found for fault in faults)
    assert all("line 1" in fault.found for fault in faults)


def test_a_manifest_that_is_absent_or_empty_is_a_fault(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", write(tmp_path, HEADER)):
        (fault,) = read_manifest(path).faults
        assert fault.path == path
    with pytest.raises(BratsError, match="modalities"):
        read_manifest(tmp_path / "absent.csv", ("pet",))


def test_cases_that_share_a_stem_draw_a_warning_unless_the_patient_is_told(tmp_path: Path) -> None:
    add(tmp_path, "Q17_u", "Q17_v", "Q18_u")
    lines = [row(case) for case in ("Q17_u", "Q17_v", "Q18_u")]
    assert len(read_manifest(write(tmp_path, HEADER, *lines)).notes) == 1
    told = [f"{line},{line[:3]}" for line in lines]
    assert read_manifest(write(tmp_path, f"{HEADER},patient", *told)).notes == ()


def test_what_was_found_and_written_is_read_back(tmp_path: Path) -> None:
    add_scans(tmp_path / "set" / "HGG", "PA-071/week-3/")
    add_scans(tmp_path / "set", "BraTS-GLI-00707-100/BraTS-GLI-00707-100-", ("t1n", "t2f"))
    found = find_cases([tmp_path / "set"], None)
    (tmp_path / "out").mkdir()
    table = manifest_table(found.cases, tmp_path / "out", {"PA-071_week-3": "brats2017"})
    lines = table.decode().splitlines()
    assert lines[0] == ",".join(MANIFEST_COLUMNS)
    assert lines[1] == (
        "BraTS-GLI-00707-100,BraTS-GLI-00707,100,"
        "../set/BraTS-GLI-00707-100/BraTS-GLI-00707-100-t1n.nii.gz,,,"
        "../set/BraTS-GLI-00707-100/BraTS-GLI-00707-100-t2f.nii.gz,,,,"
    )
    path = write(tmp_path / "out", lines[0], lines[2])
    again, before = only_case(read_manifest(path)), found.cases[1]
    assert (again.id, again.patient, again.grade) == ("PA-071_week-3", "PA-071", "HGG")
    assert again.scheme == "brats2017"
    for name in FOUR:
        assert again.images[name].path.samefile(before.images[name].path)
