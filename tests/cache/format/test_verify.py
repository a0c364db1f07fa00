"""`brats verify` finds every damaged byte and names its case, and every scan that has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.format.reader import Cache, open_cache
from brats_cache.format.verify import verify_rows, verify_sources
from tests.cache.scans import OLD, Commands, add_case, mask
from tests.hostile.caches import small_cache

SMALL = ("--size", 16, "--workers", 1)


def quiet(done: int, total: int) -> None:
    assert 0 <= done <= total


def place_of(cache: Cache, byte: int) -> str:
    """The case whose rows hold a byte of the file."""
    for case in range(len(cache.cases)):
        if any(place.offset <= byte < place.end for place in cache.row_byte_ranges(case)):
            return cache.case_id(case)
    raise AssertionError(f"byte {byte} is no row's")


@given(part=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), in_masks=st.booleans())
def test_any_bit_flipped_in_a_row_is_found_and_its_case_named(
    tmp_path_factory: pytest.TempPathFactory, part: float, bit: int, in_masks: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.h5"
    path.write_bytes(small_cache())
    cache = open_cache(path)
    assert verify_rows([cache], 2, quiet) == []
    start = cache.masks_offset if in_masks else cache.images_offset
    rows, channels, height, width = cache.shape
    byte = start + int(part * rows * height * width * (1 if in_masks else channels * 2))
    with path.open("r+b") as file:
        file.seek(byte)
        (value,) = file.read(1)
        file.seek(byte)
        file.write(bytes([value ^ 1 << bit]))
    (fault,) = verify_rows([open_cache(path)], 2, quiet)
    assert fault.case == place_of(cache, byte)
    assert fault.path == path


def test_a_file_cut_while_it_is_read_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "cut.h5"
    path.write_bytes(small_cache())
    cache = open_cache(path)
    os.truncate(path, cache.masks_offset)
    assert [fault.case for fault in verify_rows([cache], 1, quiet)] == ["a", "b"]


def test_the_command_names_every_damaged_case_of_every_file(brats: Commands) -> None:
    for n in range(4):
        add_case(Path("data"), f"p{n}", labels=mask((1,)), seed=n)
    brats("build-cache", *SMALL)
    out = Path("data/brats.h5")
    said = brats("verify", out, "--sources")
    assert "4 cases: every byte is as written and their scans are unchanged." in said.out
    cache = open_cache(out)
    raw = bytearray(out.read_bytes())
    for case in (1, 3):
        raw[cache.row_byte_ranges(case)[1].offset] ^= 255
    out.write_bytes(raw)
    Path("other.h5").write_bytes(raw[:-1])
    said = brats("verify", "other.h5", out, code=1).err
    assert "other.h5: truncated" in said
    assert "2 faults in 2 cases" in said
    for name, is_damaged in {"p0": False, "p1": True, "p2": False, "p3": True}.items():
        assert (f"  {name}: data/brats.h5: rows with the checksum" in said) == is_damaged


def test_scans_that_changed_or_went_are_named(brats: Commands) -> None:
    for n in range(3):
        add_case(Path("data"), f"p{n}", labels=mask((1,)), seed=n, suffix=".nii.gz")
    add_case(Path("data"), "without")
    brats("build-cache", *SMALL)
    Path("data/p0/p0_t1.nii.gz").unlink()
    seg = Path("data/p1/p1_seg.nii.gz")
    raw = bytearray(seg.read_bytes())
    raw[-1] ^= 1
    seg.write_bytes(raw)
    flair = Path("data/p2/p2_flair.nii.gz")
    flair.write_bytes(flair.read_bytes() + b"\0")
    pipe = Path("data/without/without_t1.nii")
    pipe.unlink()
    os.mkfifo(pipe)
    said = brats("verify", "data/brats.h5", "--sources", code=1).err
    assert "4 faults in 4 cases" in said
    assert "p0: data/p0/p0_t1.nii.gz: no such file" in said
    assert "p1: data/p1/p1_seg.nii.gz: a changed scan: checksum" in said
    assert "p2: data/p2/p2_flair.nii.gz: a changed scan: " in said
    assert "without: data/without/without_t1.nii: no regular file" in said
    brats("verify", "data/brats.h5")


def test_scans_are_found_from_any_folder(brats: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """As named when the cache was built, by a relative path."""
    add_case(Path("data"), "p", labels=mask((1,)))
    brats("build-cache", *SMALL)
    cache = Path("data/brats.h5").resolve()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    brats("verify", cache, "--sources")
    (cache.parent / "p" / "p_t1.nii").unlink()
    assert "no such file" in brats("verify", cache, "--sources", code=1).err


def test_a_scan_of_several_channels_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "small.h5"
    path.write_bytes(small_cache())
    faults = verify_sources([open_cache(path)], 1, quiet)
    assert len(faults) == 2 * (len(OLD) + 1), "the folder of its scans is gone"
