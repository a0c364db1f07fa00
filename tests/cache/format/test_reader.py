"""A cache opens where it is whole, and says what is wrong with it where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.common.errors import BratsError
from brats_cache.format.checksum import BLANK_DIGEST, find_checksum_record
from brats_cache.format.reader import Cache, open_cache
from tests.hostile.caches import sealed, small_cache


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "small.h5"
    path.write_bytes(small_cache())
    return path


def spoil(path: Path, place: int, content: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[place : place + len(content)] = content
    path.write_bytes(raw)


def test_what_is_read_is_what_hdf5_reads(path: Path) -> None:
    cache = open_cache(path)
    with h5py.File(path) as file:
        assert np.array_equal(cache.images, file["images"][:])
        assert np.array_equal(cache.masks, file["masks"][:])
        assert cache.cases.tobytes() == file["cases"][:].tobytes()
        assert cache.cases.dtype == file["cases"].dtype
        assert cache.slices.tobytes() == file["slices"][:].tobytes()
        for name in ("images", "masks"):
            assert file[name].chunks is None
            assert file[name].id.get_offset() % 4096 == 0
    assert np.abs(cache.images).max() > 0
    assert not cache.images.flags.writeable
    assert not cache.cases.flags.writeable


def test_each_kind_of_wrong_file_has_its_own_message(path: Path, tmp_path: Path) -> None:
    raw = small_cache()
    record = find_checksum_record(raw)
    assert record is not None
    version = record.offset + len("brats-cache ")
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["images"] = np.zeros(3)
    wrong = {
        "no such file": None,
        "empty": b"",
        "no HDF5 file": b"PK\x03\x04" + raw,
        "an HDF5 file, but no cache": foreign.read_bytes(),
        "format version 2 is newer.*Update brats": raw[:version] + b"0002" + raw[version + 4 :],
        "format version 0 is older.*Build it again": raw[:version] + b"0000" + raw[version + 4 :],
        "truncated: .* bytes of": raw[:-1],
        "longer than it was made": raw + b"\0",
        "unfinished": raw.replace(record.digest.encode(), BLANK_DIGEST.encode()),
        "damaged": raw.replace(b'"writer"', b'"Writer"'),
    }
    for message, content in wrong.items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BratsError, match=f"small.h5: .*{message}"):
            open_cache(path)


@given(part=st.floats(0, 1), bit=st.integers(0, 7))
def test_any_bit_flipped_outside_the_rows_is_found(
    tmp_path_factory: pytest.TempPathFactory, part: float, bit: int
) -> None:
    raw = bytearray(small_cache())
    record = find_checksum_record(raw)
    assert record is not None
    rows = [
        range(r.offset, r.end) for r in (record.byte_ranges["images"], record.byte_ranges["masks"])
    ]
    others = [n for n in range(len(raw)) if not any(n in row for row in rows)]
    raw[others[min(int(part * len(others)), len(others) - 1)]] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped.h5"
    path.write_bytes(raw)
    with pytest.raises(BratsError):
        open_cache(path)


def test_nothing_stays_open(path: Path) -> None:
    caches: list[Cache] = [open_cache(path) for _ in range(5)]
    assert all(len(cache.cases) for cache in caches)
    open_files = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert str(path.resolve()) not in open_files


@pytest.mark.parametrize("case_id", [b"", b".", b"..", b"../../x", b"/tmp/x", b"\x1b7", b"\n"])
def test_a_case_id_that_is_no_file_name_is_refused(path: Path, case_id: bytes) -> None:
    with h5py.File(path, "r+") as file:
        records = file["cases"][:]
        records["id"][0] = case_id
        file["cases"][...] = records
    path.write_bytes(sealed(path.read_bytes()))
    with pytest.raises(BratsError, match=r"small\.h5: .*case id"):
        open_cache(path)


def test_the_rows_of_a_case_are_those_its_table_names(path: Path) -> None:
    cache = open_cache(path)
    for case in range(len(cache.cases)):
        rows = cache.row_slice(case)
        assert (cache.slices["case"][rows] == case).all()
        assert np.count_nonzero(cache.slices["case"] == case) == rows.stop - rows.start
