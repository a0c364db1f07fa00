"""Whatever bytes come: every reader reads them or refuses them with a message, in little memory and
time. The inputs are those of `tests.hostile`; `scripts/soak fuzz` reads a hundred thousand."""

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
from tests.commands import ROOT
from tests.hostile.caches import read_cache, small_cache
from tests.hostile.kinds import SHARES, WITH_TORCH
from tests.hostile.scans import read_scan


@pytest.mark.parametrize("with_torch", [False, True])
def test_each_is_read_or_refused(with_torch: bool) -> None:
    """A few inputs of each kind, in two processes: to import torch takes seconds."""
    kinds = [kind for kind in SHARES if (kind in WITH_TORCH) == with_torch]
    if with_torch:
        kinds.remove("reports")  # each takes a second
    count = 30
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile", ",".join(kinds), "0", str(count)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"after {lines[-1:]}, code {done.returncode}\n{done.stderr}"
    results = [line for line in lines if line.endswith("MiB")]
    assert len(results) == len(kinds)
    for line in results:
        read, refused, _ = map(int, re.findall(r"\d+", line))
        assert read + refused == count
        assert min(read, refused) > 0, f"the inputs are neither all good nor all bad: {line}"


def test_the_guard_sees_what_a_reader_does_besides(tmp_path: Path) -> None:
    """In a process of its own, for the hook stays."""
    script = f"""
import os, subprocess
from pathlib import Path
from tests.hostile.guard import Guard
inner = Path({str(tmp_path)!r}) / "inner"
inner.mkdir()
guard = Guard(inner)
with guard:
    (inner / "a").write_bytes(b"")
    os.replace(inner / "a", inner / "b")
    (inner / "b").read_bytes()
    assert not guard.seen, guard.seen
    (inner / "../outside").write_bytes(b"")
    os.replace(inner / "b", inner.parent / "moved")
    (inner / "link").symlink_to("/dev/zero")
    subprocess.run(["true"])
print(*guard.seen, sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    seen = done.stdout.splitlines()
    assert [line.split(":")[0] for line in seen] == [
        *("opened for writing", "os.rename", "os.symlink", "subprocess.Popen")
    ]


@settings(max_examples=60)
@given(
    content=st.binary(max_size=800), start=st.sampled_from([b"", b"\x1f\x8b", b"\x89HDF\r\n\x1a\n"])
)
def test_bytes_of_no_kind(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "x"
    path.write_bytes(start + content)
    for read in (read_scan, read_cache):
        with pytest.raises(BratsError, match=re.escape(str(path))):
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
