"""Checks of the disk under a folder: free space, speed, memory maps, file locks."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from brats_cache.common.text import human_bytes
from brats_train.doctor.check import Check

__all__ = ["check_disk"]

TRIAL_BYTES = 64 << 20
SLOW = 50 << 20  # bytes a second
LITTLE_SPACE = 45 << 30  # the cache of all brain slices of BraTS 2020 takes 40
_WINDOWS = {"9p", "drvfs"}  # file systems by which WSL mounts the disks of Windows


def check_disk(name: str, folder: Path) -> Check:
    """Checks the disk that holds a folder, or would hold it; writes and removes 64 MiB.

    Args:
        name: How the folder is called in the result, such as "data/".
        folder: It need not exist.
    """
    existing = folder.absolute()
    while not existing.is_dir():
        existing = existing.parent
    kind, free = _filesystem_of(existing), shutil.disk_usage(existing).free
    found = f"{human_bytes(free)} free, {kind}"
    fix = "Choose another folder: build-cache --out, train --run-dir."
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".brats-doctor-") as opened:
            file = opened.file
            written = _speed(lambda: _write(file))
            read = _speed(lambda: _read_back(file))
            can_map, can_lock = _works(lambda: _map(file)), _works(lambda: _lock(file))
    except OSError as error:
        found = f"{existing} cannot be written ({error.strerror})"
        return Check(name=name, state="warning", found=found, fix=fix)
    found += f", writes {human_bytes(written)}/s, reads {human_bytes(read)}/s"
    fixes = {
        "no memory maps here; keep the cache on another disk.": not can_map,
        "no file locks here; never start two builds of one cache at a time.": not can_lock,
        "a disk of Windows seen from WSL is slow; use the Linux one.": kind in _WINDOWS,
        "slow: keep the cache on a faster disk.": min(written, read) < SLOW,
        "the cache of BraTS 2020 takes 40 GB; --slices middle takes 0.3.": free < LITTLE_SPACE
        and name == "data/",
    }
    needed = [text for text, is_needed in fixes.items() if is_needed]
    if not needed:
        return Check(name=name, found=found)
    text = " ".join(fix[0].upper() + fix[1:] for fix in needed)
    return Check(name=name, state="warning", found=found, fix=text)


def _filesystem_of(folder: Path) -> str:
    """The type of the file system that holds a folder, such as ext4, nfs4 or 9p."""
    best, kind = "", "unknown file system"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted, name, *_ = line.split()
        mounted = mounted.replace("\\040", " ")
        if len(mounted) >= len(best) and folder.is_relative_to(mounted):
            best, kind = mounted, name
    return kind


def _speed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return TRIAL_BYTES / (time.perf_counter() - started)


def _write(file: IO[bytes]) -> None:
    """Writes bytes that no file system can compress, and syncs them."""
    file.write(os.urandom(1 << 20) * (TRIAL_BYTES >> 20))
    file.flush()
    os.fsync(file.fileno())


def _read_back(file: IO[bytes]) -> None:
    """Reads from the disk, as far as the kernel drops the pages it has just written."""
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    file.seek(0)
    while file.read(1 << 20):
        pass


def _works(work: Callable[[], None]) -> bool:
    try:
        work()
    except OSError:
        return False
    return True


def _map(file: IO[bytes]) -> None:
    with mmap.mmap(file.fileno(), TRIAL_BYTES, prot=mmap.PROT_READ) as mapped:
        mapped.madvise(mmap.MADV_WILLNEED)


def _lock(file: IO[bytes]) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
