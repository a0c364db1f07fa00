"""Whether a folder's disk will do: room, speed, memory maps, locks."""

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

__all__ = ["look_at_disk"]

TRIAL_BYTES = 64 << 20
SLOW = 50 << 20  # bytes a second
LITTLE_ROOM = 45 << 30  # the cache of all brain slices of BraTS 2020 takes 40
_WINDOWS = {"9p", "drvfs"}  # how WSL mounts the disks of Windows


def look_at_disk(name: str, folder: Path) -> Check:
    """What the disk under `folder`, or under where it would be made, can do; 64 MiB are written to
    it, read back and removed."""
    place = folder.absolute()
    while not place.is_dir():
        place = place.parent
    kind, free = _kind_of(place), shutil.disk_usage(place).free
    found = f"{human_bytes(free)} free, {kind}"
    fix = "Choose another folder: build-cache --out, train --run."
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".brats-doctor-") as opened:
            file = opened.file
            written = _speed(lambda: _write(file))
            read = _speed(lambda: _read_back(file))
            can_map, can_lock = _works(lambda: _map(file)), _works(lambda: _lock(file))
    except OSError as error:
        found = f"{place} cannot be written ({error.strerror})"
        return Check(name=name, state="warning", found=found, fix=fix)
    found += f", writes {human_bytes(written)}/s, reads {human_bytes(read)}/s"
    faults = {
        "no memory maps here; keep the cache on another disk.": not can_map,
        "no file locks here; never start two builds of one cache at a time.": not can_lock,
        "a disk of Windows seen from WSL is slow; use the Linux one.": kind in _WINDOWS,
        "slow: keep the cache on a faster disk.": min(written, read) < SLOW,
        "the cache of BraTS 2020 takes 40 GB; --slices middle takes 0.3.": free < LITTLE_ROOM
        and name == "data/",
    }
    mends = [text for text, is_so in faults.items() if is_so]
    if not mends:
        return Check(name=name, found=found)
    text = " ".join(fix[0].upper() + fix[1:] for fix in mends)
    return Check(name=name, state="warning", found=found, fix=text)


def _kind_of(place: Path) -> str:
    """The type of the file system that holds `place`, such as ext4, nfs4 or 9p."""
    best, kind = "", "unknown file system"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted, name, *_ = line.split()
        mounted = mounted.replace("\\040", " ")
        if len(mounted) >= len(best) and place.is_relative_to(mounted):
            best, kind = mounted, name
    return kind


def _speed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return TRIAL_BYTES / (time.perf_counter() - started)


def _write(file: IO[bytes]) -> None:
    """Bytes that no file system can compress away, down to the disk."""
    file.write(os.urandom(1 << 20) * (TRIAL_BYTES >> 20))
    file.flush()
    os.fsync(file.fileno())


def _read_back(file: IO[bytes]) -> None:
    """From the disk, as far as the kernel lets go of what it has just written."""
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
