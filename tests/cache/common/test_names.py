"""A name that becomes a file name stays in its folder and can be written to any terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.common.names import check_file_name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "empty"),
        (".", "folder"),
        ("..", "folder"),
        ("/etc/passwd", "slash"),
        ("a/b", "slash"),
        ("../a", "slash"),
        ("a\0b", "U\\+0000"),
        ("a\nb", "U\\+000A"),
        ("\x1b[2J", "U\\+001B"),
        ("a\x7f", "U\\+007F"),
        ("a\x85", "U\\+0085"),
        ("a\u2028b", "U\\+2028"),
    ],
)
def test_what_is_no_file_name_is_refused_with_the_reason(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_file_name(name)


@pytest.mark.parametrize(
    "name", ["BraTS20_Training_001", "sub-01 ses 2", "...", "Müller", "患者1", "-x", "a\\b", "~"]
)
def test_other_names_are_taken(name: str) -> None:
    check_file_name(name)


@given(st.text(max_size=20))
def test_an_accepted_name_is_an_entry_of_its_folder(name: str) -> None:
    try:
        check_file_name(name)
    except ValueError:
        return
    path = Path("folder") / f"{name}.nii.gz"
    assert path.parent == Path("folder")
    assert len(path.name.splitlines()) == 1
