"""What a build checks of a manifest before it reads a scan."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from brats_cache.format.reader import open_cache
from tests.cache.scans import SMALL, Commands, image, mask, write

MANIFEST = ("build-cache", *SMALL, "--modalities", "t1", "--manifest", "in/t.csv", "--out", "m.h5")


def write_manifest(lines: Sequence[Mapping[str, str]]) -> None:
    """A manifest of cases `a`, `b`, ... with the given cells; a mask unless `seg` is blank."""
    columns = ["case", "patient", "t1", "seg", "split", "scheme"]
    rows = []
    for number, (case, line) in enumerate(zip("abcdefgh", lines, strict=False)):
        write(Path(f"in/{case}.nii"), image(number))
        write(Path(f"in/{case}_of.nii"), mask((1, 2, 4)))
        cells = {"case": case, "patient": case, "t1": f"{case}.nii", "seg": f"{case}_of.nii"}
        rows.append({**cells, **line})
    with open("in/t.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def test_an_unknown_scheme_names_case_table_and_column(brats: Commands) -> None:
    write_manifest([{"scheme": "BraTS2017"}, {"scheme": "brats1999"}, {"scheme": "AUTO"}])
    said = brats(*MANIFEST, code=1).err
    assert "b: in/t.csv: column scheme: brats1999; expected one of brats2013" in said
    assert "a: in/t.csv" not in said
    brats(*MANIFEST, "--skip-bad")
    assert open_cache("m.h5").cases["id"].tolist() == [b"a", b"c"]


def test_masks_that_contradict_the_scheme_of_a_manifest_say_so(brats: Commands) -> None:
    write_manifest([{"scheme": "brats2023"}, {"scheme": "brats2023"}])
    said = brats(*MANIFEST, code=1).err
    assert "by the manifest" in said
    assert "column scheme" in said
    assert "--label-scheme" not in said


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([{"split": "train"}, {"split": "val"}, {"split": ""}], "c: in/t.csv: column split: a bl"),
        ([{"split": "train"}, {"split": "val", "seg": ""}], "b: in/t.csv: column split: val, but"),
        (
            [{"split": "train"}, {"split": "val"}, {"split": "val", "patient": "a"}],
            "c: in/t.csv: column split: val, but a of the same patient a is train",
        ),
    ],
)
def test_splits_that_cannot_hold_name_case_and_column(
    brats: Commands, lines: list[dict[str, str]], found: str
) -> None:
    write_manifest(lines)
    assert found in brats(*MANIFEST, code=1).err
    assert not Path("m.h5").exists()


def test_a_manifest_without_splits_decides_none(brats: Commands) -> None:
    """Follow-ups without a mask would make everything test; no column said so."""
    lines = []
    for patient in ("x", "y"):
        lines += [{"patient": patient}, {"patient": patient, "seg": ""}]
    write_manifest(lines)
    assert "2 of 2 cases with a segmentation would be test" in brats(*MANIFEST, code=1).err
    write_manifest([{**line, "split": "test"} for line in lines])
    brats(*MANIFEST)


def test_a_manifest_and_words_exclude_each_other(brats: Commands) -> None:
    write_manifest([{}])
    assert "leave --mask-word out" in brats(*MANIFEST, "--mask-word", "x", code=2).err


@pytest.mark.parametrize("word", ["", "_", "T1Gd", "flair"])
def test_a_word_that_can_mean_no_mask_is_refused(brats: Commands, word: str) -> None:
    assert "--mask-word" in brats("build-cache", *SMALL, "--mask-word", word, code=2).err
