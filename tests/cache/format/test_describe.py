"""What is said of a cache is true, fits a terminal, and is JSON where a program asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brats_cache.common.text import human_bytes
from tests.cache.scans import Commands, add_case, mask

SMALL = ("--size", 16, "--workers", 1)


def test_info_in_words_and_for_programs(brats: Commands) -> None:
    for n in range(4):
        add_case(Path("data"), f"BraTS20_Training_{n:03d}", labels=mask(), seed=n)
    add_case(Path("data"), "BraTS20_Validation_001", seed=9)
    Path("data/name_mapping.csv").write_text(
        "Grade,BraTS_2020_subject_ID\nHGG,BraTS20_Training_000\nLGG,BraTS20_Training_001\n"
    )
    brats("build-cache", *SMALL, "--folds", 2, "--val-fraction", 0.25)
    words = brats("info", "data/brats.h5").out
    assert max(map(len, words.splitlines())) <= 80
    for text in ("5 (3 train, 1 val, 1 test)", "20 (12 train, 4 val, 4 test)", "1 HGG", "1 LGG"):
        assert text in words
    held = json.loads(brats("info", "--json", "data/brats.h5").out)
    (file,) = held["files"]
    assert (file["shape"], file["options"]["num_folds"]) == ([20, 4, 16, 16], 2)
    first, *_, last = held["cases"]
    assert first["id"] == "BraTS20_Training_000"
    assert first["native_voxel_counts"] == {"1": 6, "2": 6, "4": 6}
    assert first["canonical_voxel_counts"] == {"1": 6, "2": 6, "3": 6}
    assert (first["scheme"], first["grade"], first["rows"]) == ("brats2017", "HGG", 4)
    assert first["native_shape"] == [14, 12, 6]
    assert (last["split"], last["fold"], last["has_mask"]) == ("test", -1, False)
    assert last["native_voxel_counts"] == {}


def test_what_differs_from_an_existing_cache_is_listed(brats: Commands) -> None:
    for n in range(3):
        add_case(Path("data"), f"p{n}", labels=mask((1,)), seed=n)
    brats("build-cache", *SMALL)
    before = Path("data/brats.h5").read_bytes()
    add_case(Path("data"), "p1", labels=mask((1,)), seed=7)
    (Path("data") / "p2").rename("data/q2")
    for path in sorted(Path("data/q2").iterdir()):
        path.rename(path.with_name(path.name.replace("p2", "q2")))
    said = brats("build-cache", *SMALL, "--folds", 2, "--normalize", "none", code=1).err
    for text in (
        "normalize: zscore there, none now",
        "num_folds: 0 there, 2 now",
        "p2: in that file, not among the scans now",
        "q2: among the scans now, not in that file",
        "p1: its scans have changed",
    ):
        assert f"  {text}\n" in said
    assert Path("data/brats.h5").read_bytes() == before


def test_info_of_what_is_no_cache(brats: Commands) -> None:
    Path("x.h5").write_text("no")
    assert "x.h5: no HDF5 file" in brats("info", "x.h5", code=1).err
    assert "no such file" in brats("info", "absent.h5", code=1).err


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"),
     (3 << 50, "3072.0 TiB")],
)  # fmt: skip
def test_bytes_for_people(count: int, text: str) -> None:
    assert human_bytes(count) == text
