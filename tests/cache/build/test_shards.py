"""Parts built apart are the whole that one build would have made."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.build.shards import Shard, parse_shard
from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache, open_cache
from tests.cache.scans import SHAPE, Commands, add_case, mask, write

SMALL = ("--size", 16, "--workers", 1)


@given(count=st.integers(1, 40), num_items=st.integers(0, 200))
def test_the_parts_are_the_whole_in_order_and_alike_in_length(count: int, num_items: int) -> None:
    items = list(range(num_items))
    parts = [Shard(index=i, count=count).share(items) for i in range(1, count + 1)]
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/2/3", " 1/2"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(BratsError, match="I/N"):
        parse_shard(text)


def add_people(data: Path) -> None:
    """Seven cases of plain names, the labels of which only all together tell the scheme."""
    values = [(1, 2), (1, 2), (4,), (2,), (1,), (1, 2, 4)]
    for n, present in enumerate(values):
        add_case(data, f"p{n}", labels=mask(present), seed=n)
    add_case(data, "p6", seed=6)


def build_parts(brats: Commands, count: int, *options: object) -> list[Path]:
    for index in range(1, count + 1):
        brats("build-cache", *SMALL, *options, "--shard", f"{index}/{count}")
    return [Path(f"data/brats-{index}-of-{count}.h5") for index in range(1, count + 1)]


def columns(caches: list[Cache], *names: str) -> list[tuple[object, ...]]:
    return [tuple(row) for cache in caches for row in cache.cases[list(names)].tolist()]


def test_parts_together_are_what_one_build_makes(brats: Commands) -> None:
    add_people(Path("data"))
    options = ("--folds", 2, "--val-fraction", 0.4)
    brats("build-cache", *SMALL, *options)
    whole = open_cache(Path("data/brats.h5"))
    parts = [open_cache(path) for path in build_parts(brats, 3, *options)]
    assert [part.shard for part in parts] == [(1, 3), (2, 3), (3, 3)]
    assert {part.set_fingerprint for part in parts} == {whole.set_fingerprint}
    assert np.array_equal(np.concatenate([part.images for part in parts]), whole.images)
    assert np.array_equal(np.concatenate([part.masks for part in parts]), whole.masks)
    names = ("id", "split", "fold", "label_scheme", "rows", "checksum")
    assert columns(parts, *names) == columns([whole], *names)
    assert {part.cases["label_scheme"][0] for part in parts} == {b"brats2017"}
    brats("verify", *[part.path for part in parts], "--sources")


def test_info_sees_parts_as_one_and_says_what_is_missing(brats: Commands) -> None:
    add_people(Path("data"))
    paths = build_parts(brats, 4)
    said = brats("info", *reversed(paths)).out
    assert "parts        1 to 4 of 4, all there" in said
    assert said.count("cache  ") == 1
    assert "7 (" in said
    said = brats("info", paths[3], paths[0]).out
    assert "parts        1, 4 of 4; missing 2 to 3" in said
    assert max(map(len, said.splitlines())) <= 80
    shutil.copy(paths[0], "again.h5")
    assert "are both part 1 of 4" in brats("info", *paths, "again.h5", code=1).err


def test_a_fault_anywhere_stops_every_part(brats: Commands) -> None:
    add_people(Path("data"))
    write(Path("data/p5/p5_seg.nii"), np.full(SHAPE, 9, np.uint8))
    write(Path("data/p6/p6_t1.nii"), np.zeros((3, 3, 3), np.int16))
    for index in (1, 2):
        said = brats("build-cache", *SMALL, "--shard", f"{index}/2", code=1).err
        assert "Note: 1 of 7 cases has faults" in said
        assert "p5: data/p5/p5_seg.nii" in said
        assert "p6: data/p6/p6_t1ce.nii: 14 x 12 x 6 voxels" in said
    paths = build_parts(brats, 2, "--skip-bad")
    ids = [name for path in paths for name in open_cache(path).cases["id"].tolist()]
    assert ids == [b"p0", b"p1", b"p2", b"p3", b"p4"]


def test_more_parts_than_cases_is_refused(brats: Commands) -> None:
    add_case(Path("data"), "p", labels=mask((1,)))
    said = brats("build-cache", *SMALL, "--shard", "1/2", code=1).err
    assert "there are only 1 cases" in said
    brats("build-cache", *SMALL, "--shard", "2/2")


def test_a_part_is_not_gone_on_with_as_another(brats: Commands) -> None:
    add_people(Path("data"))
    out = ("--out", "data/x.h5")
    brats("build-cache", *SMALL, *out, "--shard", "1/2")
    said = brats("build-cache", *SMALL, *out, "--shard", "2/2", code=1).err
    assert "shard: 1/2 there, 2/2 now" in said


def test_a_link_shows_h5py_the_whole(
    brats: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_people(Path("data"))
    add_case(Path("data"), "z_of_a_longer_name", labels=mask((1, 2, 4)), seed=9)
    brats("build-cache", *SMALL)
    paths = build_parts(brats, 3)
    assert "8 (" in brats("info", *paths).out
    for path in paths:
        path.rename(path.with_name(path.name.replace("brats-", "50% of-")))
    paths = [path.with_name(path.name.replace("brats-", "50% of-")) for path in paths]
    assert "parts 2/3" in brats("link", paths[0], paths[2], "--out", "data/two.h5").err
    brats("link", *reversed(paths), "--out", "data/all.h5")
    assert "exists" in brats("link", *paths, "--out", "data/all.h5", code=1).err
    assert "one of the parts" in brats("link", *paths, "--out", paths[0], "--overwrite", code=1).err
    shutil.move("data", "moved")
    monkeypatch.chdir("/")
    here = tmp_path / "moved"
    whole = open_cache(here / "brats.h5")
    with h5py.File(here / "all.h5") as file:
        assert np.array_equal(file["images"][:], whole.images)
        assert np.array_equal(file["masks"][:], whole.masks)
        for name in whole.cases.dtype.names:
            assert repr(file["cases"][name].tolist()) == repr(whole.cases[name].tolist()), name
        assert np.array_equal(file["slices"][:], whole.slices)
    said = brats("info", here / "all.h5", code=1).err
    assert "a link over caches, for h5py alone" in said
    assert "50% of-1-of-3.h5 50% of-2-of-3.h5 50% of-3-of-3.h5" in said


def test_what_does_not_fit_together_is_not_linked(brats: Commands) -> None:
    add_people(Path("data"))
    brats("build-cache", *SMALL, "--out", "a.h5")
    brats("build-cache", *SMALL, "--out", "b.h5", "--seed", 1)
    brats("build-cache", "--size", 32, "--out", "c.h5")
    said = brats("link", "a.h5", "b.h5", "--out", "l.h5", code=1).err
    assert "p0: in a.h5 and again in b.h5" in said
    assert "prepared differently" in brats("link", "a.h5", "c.h5", "--out", "l.h5", code=1).err
    assert not Path("l.h5").exists()
