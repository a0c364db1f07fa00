"""Faults of many cases are one line of the message and a list in a file."""

from __future__ import annotations

from pathlib import Path

from tests.cache.scans import LPS, SMALL, Commands, add_case, mask, write

DATA = Path("data")


def test_many_equal_faults_are_one_line_and_a_file(brats: Commands) -> None:
    for number in range(25):
        add_case(DATA, f"p{number:02}", labels=mask((1,), (7, 12, 6)), seed=number)
    said = brats("build-cache", *SMALL, code=1).err
    assert "p02: data/p02/p02_seg.nii" in said
    assert "p03" not in said
    assert "and 22 more" in said
    listed = Path("data/brats.h5.faults.txt")
    assert str(listed) in said
    assert all(f"p{number:02}" in listed.read_text() for number in range(25))


def test_a_long_list_of_cases_left_out_is_written_too(brats: Commands) -> None:
    for number in range(24):
        bad = mask((1,), (7, 12, 6))
        add_case(DATA, f"p{number:02}", labels=bad if number > 1 else mask((1,)), seed=number)
    said = brats("build-cache", *SMALL, "--skip-bad").err
    assert "22 times" in said
    assert "data/brats.h5.faults.txt" in said
    assert len(Path("data/brats.h5.faults.txt").read_text().splitlines()) == 22


def test_faults_of_a_dry_run_are_listed_where_a_folder_is(brats: Commands) -> None:
    for number in range(21):
        shifted = LPS.copy()
        shifted[0, 3] += 1 + number / 3
        folder = add_case(DATA, f"p{number:02}", seed=number)
        write(folder / f"p{number:02}_seg.nii", mask((1,)), shifted)
    said = brats("build-cache", *SMALL, "--dry-run", "--out", "new/x.h5", code=1).err
    assert "21 alike" in said
    assert "x.h5.faults.txt" in said
    assert len(Path("x.h5.faults.txt").read_text().splitlines()) == 21
    assert not Path("new").exists()
