"""Files are written whole or not at all, and what killed processes left is removed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from brats_cache.common import files
from brats_cache.common.errors import BratsError
from brats_cache.common.files import sweep_partials, write_atomically

WRITES_FOR_EVER = """
import sys, time
from pathlib import Path
from brats_cache.common.files import write_atomically
def write(file):
    file.write(b"half"); file.flush()
    print("writing", flush=True)
    time.sleep(600)
write_atomically(Path(sys.argv[1]), write)
"""


@pytest.mark.parametrize("name", ["table.csv", "ü" * 127, " -x.\n"])
def test_a_file_of_any_name_replaces_the_one_before(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_atomically(path, b"one")
    write_atomically(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(tmp_path) == [name]


def test_the_order_is_write_sync_rename_sync_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.replace

    def record_sync(descriptor: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        size = "" if target.is_dir() else f" of {target.stat().st_size} bytes"
        calls.append(("sync of the folder" if target.is_dir() else "sync") + size)
        fsync(descriptor)

    def record_rename(one: Path, other: Path) -> None:
        calls.append("rename")
        rename(one, other)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_rename)
    write_atomically(tmp_path / "file", b"12345")
    assert calls == ["sync of 5 bytes", "rename", "sync of the folder"]


@pytest.mark.kills
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path / "model.bin")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        sweep_partials(tmp_path)
        (partial,) = tmp_path.iterdir()
        assert partial.name.startswith(".model.bin.")
        assert partial.suffix == ".partial"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    other = tmp_path / ".of-a-person.partial"
    other.touch()
    write_atomically(tmp_path / "another", b"")
    assert {path.name for path in tmp_path.iterdir()} == {"another", other.name}


def test_a_partial_is_never_written_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    folder.mkdir()
    victim.write_bytes(b"kept")
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    monkeypatch.setattr("socket.gethostname", lambda: "host")
    (folder / f".file.host-{'0' * 16}.partial").symlink_to(victim)
    with pytest.raises(BratsError, match="File exists"):
        write_atomically(folder / "file", b"new")
    assert victim.read_bytes() == b"kept"


def test_a_full_disk_is_told_whatever_a_library_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brats_cache.common.partials import PartialFile

    def full(self: PartialFile, data: object) -> int:
        self.failure = self.failure or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise self.failure

    def hide(file: BinaryIO) -> None:
        try:
            file.write(b"x" * 1_000_000)
        except OSError:
            raise RuntimeError("inline_container: unexpected pos 64 vs 0") from None

    path = tmp_path / "model.bin"
    path.write_bytes(b"before")
    monkeypatch.setattr(PartialFile, "write", full)
    with pytest.raises(
        BratsError, match=r"model\.bin: cannot be written \(No space left.*Free space"
    ):
        write_atomically(path, hide)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["model.bin"]


def test_an_error_that_is_not_the_disks_is_raised_as_it_is(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "file", fail)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("through_a_link", [False, True])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, through_a_link: bool) -> None:
    """Root can rename a file over a device, after which no program has that device."""
    path = target = tmp_path / "pipe"
    os.mkfifo(target)
    if through_a_link:
        path = tmp_path / "link"
        path.symlink_to(target)
    with pytest.raises(BratsError, match=r"cannot be written \(a pipe, not a regular file\)"):
        write_atomically(path, b"page")
    assert target.is_fifo()
    assert path.is_symlink() == through_a_link
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted({path.name, "pipe"})


def test_no_name_of_the_system_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/stdout is a link, to a regular file where the output is redirected into one."""
    devices, redirected = tmp_path / "dev", tmp_path / "output"
    devices.mkdir()
    redirected.touch()
    (devices / "stdout").symlink_to(redirected)
    monkeypatch.setattr(files, "_DEVICES", devices)
    with pytest.raises(BratsError, match=r"a name of the system.* Choose another name"):
        write_atomically(devices / "stdout", b"page")
    assert (devices / "stdout").is_symlink()
    assert [one.name for one in devices.iterdir()] == ["stdout"]
