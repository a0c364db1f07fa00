"""A message says where, what, and the way out, in one line, and can be read and copied anywhere."""

from __future__ import annotations

import os
import pickle
import pty
import sys
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.common.errors import DataFaults, Fault, print_message, printable, wrapped

FAULT = Fault(
    case="BraTS20_Training_355",
    path=Path("/a disk/with spaces/BraTS20_Training_355_t1.nii.gz"),
    found="a truncated file: 100 bytes",
    expected="at least 352",
    remedy="Download or copy the file again.",
)


def test_a_fault_says_case_path_found_expected_and_the_way_out() -> None:
    assert str(FAULT) == (
        "BraTS20_Training_355: /a disk/with spaces/BraTS20_Training_355_t1.nii.gz: a truncated "
        "file: 100 bytes; expected at least 352. Download or copy the file again."
    )
    bare = Fault(case="", path=None, found="nothing", expected="something")
    assert str(bare) == "nothing; expected something."


def test_faults_are_counted_and_cross_processes() -> None:
    other = Fault(case="", path=Path("x.csv"), found="a", expected="b")
    faults = DataFaults([FAULT, FAULT, other], "Mend them.")
    lines = str(faults).splitlines()
    assert lines[0] == "3 faults in 1 case:"
    assert lines[1:] == [f"  {FAULT}", f"  {FAULT}", f"  {other}", "Mend them."]
    again = pickle.loads(pickle.dumps(faults))
    assert (str(again), again.faults) == (str(faults), faults.faults)
    assert str(DataFaults([other])).startswith("1 fault:\n")


def _shifted(number: int, kind: str = "shifted") -> Fault:
    found = f"{kind} by {number}.{number} mm"
    return Fault(case=f"c{number}", path=Path(f"c{number}.nii"), found=found, expected="less")


def test_many_faults_that_differ_in_numbers_alone_are_one_line() -> None:
    few = str(DataFaults([_shifted(number) for number in range(20)])).splitlines()
    assert len(few) == 21
    head, line = str(DataFaults([_shifted(number) for number in range(21)])).splitlines()
    assert head == "21 faults in 21 cases:"
    assert line == (
        "  21 alike, the first: shifted by 0.0 mm; expected less. (c0: c0.nii; c1: c1.nii; "
        "c2: c2.nii and 18 more)"
    )


def test_a_long_list_that_is_written_elsewhere_is_cut() -> None:
    faults = [_shifted(number, kind=f"kind {letter}") for number, letter in enumerate("abcdefghij")]
    error = pickle.loads(pickle.dumps(DataFaults(faults, "All are in f.txt.", num_lines=4)))
    lines = str(error).splitlines()
    assert lines[:5] == ["10 faults in 10 cases:", *(f"  {fault}" for fault in faults[:4])]
    assert lines[5:] == ["  and 6 more like these", "All are in f.txt."]


@given(st.text())
def test_what_is_printed_cannot_steer_a_terminal(text: str) -> None:
    assert printable(text).isprintable()


@given(st.lists(st.text(st.characters(codec="ascii", exclude_categories=["C"]))), st.integers())
def test_wrapping_changes_nothing_but_spaces_and_line_ends(words: list[str], width: int) -> None:
    text = " ".join(words)
    lines = wrapped(text, min(width, 500)).split("\n")
    assert " ".join(lines).split() == text.split()
    for line in lines:
        assert len(line) <= max(width, 40) or len(line.split()) == 1


def test_cases_and_paths_stay_whole_when_wrapped() -> None:
    faults = DataFaults([FAULT, FAULT], "Nothing was written. Mend them, or leave those cases out.")
    lines = wrapped(f"Error: {faults}", 80, faults.names).splitlines()
    assert sum(str(FAULT.path) in line for line in lines) == 2
    assert all(len(line) <= 80 or str(FAULT.path) in line for line in lines)
    assert lines[0] == "Error: 2 faults in 1 case:"
    assert lines[1].startswith("  BraTS20_Training_355:")
    assert lines[2].startswith("    ")


def test_told_unwrapped_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_message(DataFaults([FAULT]), prefix="Error: ")
    assert capsys.readouterr().err == f"Error: 1 fault in 1 case:\n  {FAULT}\n"


@pytest.mark.parametrize("columns", [80, 50])
def test_told_in_the_width_of_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    leader, follower = pty.openpty()
    try:
        termios.tcsetwinsize(follower, (24, columns))
        with os.fdopen(os.dup(follower), "w") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            print_message("word " * 60, prefix="Warning: ")
        said = os.read(leader, 10_000).decode().splitlines()
    finally:
        os.close(leader)
        os.close(follower)
    assert len(said) > 3
    assert all(columns - 6 < len(line) <= columns for line in said[:-1])
