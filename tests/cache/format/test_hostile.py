"""Whatever bytes come: a scan or a cache is read or refused with a message, in little memory and
time. The inputs are those of `tests.cache.hostile`; `scripts/soak fuzz` reads thousands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import open_cache
from tests.cache.hostile_caches import read_cache, small_cache
from tests.cache.hostile_scans import read_scan
from tests.commands import ROOT


@pytest.mark.parametrize("kind", ["scans", "caches"])
def test_each_is_read_or_refused(kind: str) -> None:
    count = 300
    done = subprocess.run(
        [sys.executable, "-m", "tests.cache.hostile", kind, "0", str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    *numbers, last = done.stdout.splitlines() or [""]
    assert done.returncode == 0, (
        f"after input {numbers[-1:]}, code {done.returncode}\n{done.stderr}"
    )
    read, refused = map(int, re.findall(r"\d+", last))
    assert read + refused == count
    assert min(read, refused) > count // 10, "the inputs are neither all good nor all bad"


@settings(max_examples=60)
@given(
    content=st.binary(max_size=800), start=st.sampled_from([b"", b"\x1f\x8b", b"\x89HDF\r\n\x1a\n"])
)
def test_bytes_of_no_kind(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(start + content)
    for read in (read_scan, read_cache):
        with pytest.raises(BratsError, match="bytes"):
            read(path)


@pytest.mark.parametrize("make", ["fifo", "folder", "device", "missing"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make: str) -> None:
    path = tmp_path / "x.h5"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    elif make == "device":
        path.symlink_to("/dev/zero")
    for read in (read_scan, read_cache):
        with pytest.raises(BratsError, match=re.escape(str(path))):
            read(path)


def test_a_sparse_file_of_terabytes_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(small_cache())
    os.truncate(path, 1 << 42)
    for read in (read_scan, read_cache):
        with pytest.raises(BratsError):
            read(path)


def test_a_caches_hdf5_structures_are_not_believed(tmp_path: Path) -> None:
    """The reader takes what the checksum covers; a link that HDF5 would follow leads nowhere."""
    elsewhere, path = tmp_path / "elsewhere.h5", tmp_path / "x.h5"
    with h5py.File(elsewhere, "w") as file:
        file["images"] = np.zeros((10, 4, 16, 16), np.float16)
    path.write_bytes(small_cache())
    with h5py.File(path, "r+") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink(str(elsewhere), "images")
    with pytest.raises(BratsError, match="damaged"):
        open_cache(path)
