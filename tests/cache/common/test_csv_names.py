"""No name that is written to a CSV file is a formula to a spreadsheet, and each is read back."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.build.split_tables import Assignment, format_splits
from brats_cache.common.csv_names import read_name, written_name
from brats_cache.discovery.cases import Case, Scan
from brats_cache.discovery.manifest import manifest_table, read_manifest
from brats_cache.discovery.tables import read_csv
from tests.cache.discovery.trees import FOUR

FORMULAS = ("=HYPERLINK(A1)", "+2", "-3", "@SUM(A1)", "'=2", "''@x", "\x1b=4", "\x7f-", "＝5")
PLAIN = ("BraTS20_Training_001", "'quoted'", "a=b", "p-1", "7", "été")
NAMES = st.text("=+-@'a\t\r\x1b", max_size=5)


@given(NAMES)
def test_a_name_is_text_and_comes_back(name: str) -> None:
    cell = written_name(name)
    assert read_name(cell) == name
    assert not cell or cell[0] not in "=+-@\t\r\x1b"


@given(NAMES, NAMES)
def test_different_names_have_different_cells(one: str, other: str) -> None:
    assert (written_name(one) == written_name(other)) == (one == other)


@pytest.mark.parametrize("name", PLAIN)
def test_other_names_are_written_as_they_are(name: str) -> None:
    assert written_name(name) == read_name(name) == name


def harmless(table: bytes) -> bool:
    rows = csv.reader(table.decode().splitlines())
    return all(not cell or cell[0] not in "=+-@\x1b\x7f＝" for row in rows for cell in row)


def test_splits_are_read_back(tmp_path: Path) -> None:
    names = sorted((*FORMULAS, *PLAIN))
    table = format_splits(dict.fromkeys(names, Assignment(split="train", fold=-1)))
    assert harmless(table)
    (tmp_path / "brats.splits.csv").write_bytes(table)
    rows = read_csv(tmp_path / "brats.splits.csv")
    assert [row.cells["patient"] for row in rows] == names


def test_a_manifest_is_read_back(tmp_path: Path) -> None:
    names = sorted((*FORMULAS, *PLAIN))
    cases = []
    for name in names:
        images = {m: Scan(path=tmp_path / name / f"{m}.nii") for m in FOUR}
        (tmp_path / name).mkdir()
        for scan in images.values():
            scan.path.touch()
        cases.append(
            Case(id=name, patient=name, naming="plain", data_dir=tmp_path, images=images, mask=None)
        )
    table = manifest_table(cases, tmp_path, {})
    assert harmless(table)
    (tmp_path / "cases.csv").write_bytes(table)
    found = read_manifest(tmp_path / "cases.csv")
    assert found.faults == ()
    assert [case.id for case in found.cases] == names
    assert [case.patient for case in found.cases] == names
    assert [case.images["t1"].path for case in found.cases] == [
        tmp_path / name / "t1.nii" for name in names
    ]


def test_a_name_that_was_never_marked_is_itself(tmp_path: Path) -> None:
    (tmp_path / "by_hand.csv").write_text("case,split\n-p1,train\n=p2,val\n")
    assert [row.cells["case"] for row in read_csv(tmp_path / "by_hand.csv")] == ["-p1", "=p2"]
