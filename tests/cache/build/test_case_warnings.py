"""What a build warns of, once a kind: headers that leave something open, scans that look odd."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.cache.scans import SMALL, Commands, add_case, edit, image, mask, write

DATA = Path("data")


def test_a_header_that_others_read_otherwise_is_told_once_with_a_count(brats: Commands) -> None:
    for number in range(5):
        folder = add_case(DATA, f"p{number}", labels=mask((1,)), seed=number)
        for path in folder.iterdir() if number else ():
            edit(path, xyzt_units=1)  # metres
    said = brats("build-cache", *SMALL).err
    (line,) = [line for line in said.splitlines() if "unit of length" in line]
    assert "4 of 5 cases (p1, p2, p3 and 1 more)" in line


def test_scans_that_look_odd_are_told_with_the_tools_that_prepare_them(brats: Commands) -> None:
    for number in range(2):
        folder = add_case(DATA, f"p{number}", labels=mask((1,)), seed=number)
        write(folder / f"p{number}_t2.nii", image(10 * number))  # T1 once more
    said = brats("build-cache", *SMALL).err
    assert "two modalities are one image: 2 of 2 cases (p0, p1)" in said
    assert "HD-BET" in said


def test_sound_scans_are_not_warned_of(brats: Commands) -> None:
    for number in range(2):
        add_case(DATA, f"p{number}", labels=mask((1,)), seed=number)
    assert "Warning" not in brats("build-cache", *SMALL).err


def test_a_mask_that_lies_beside_the_brain_is_told(brats: Commands) -> None:
    outside = np.zeros_like(mask())
    outside[:2, :2, 0] = 1  # in the border, where no modality holds anything
    add_case(DATA, "p0", labels=mask((1,)), seed=0)
    add_case(DATA, "p1", labels=outside, seed=1)
    said = brats("build-cache", *SMALL).err
    assert "a mask mostly outside the brain: 1 of 2 cases (p1)" in said
    assert "brats view" in said
    assert "HD-BET" not in said
