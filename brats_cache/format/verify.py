"""Verifies that every byte of a cache is as it was written, and that its scans are unchanged.

Reading and hashing release Python's lock, so threads keep a disk busy; they hold a few MiB each.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple

import xxhash

from brats_cache.common.errors import Fault
from brats_cache.format.reader import Cache
from brats_cache.format.row_checksum import read_rows_checksum

__all__ = ["verify_rows", "verify_sources"]

Progress = Callable[[int, int], None]
_CHUNK_BYTES = 4 << 20


class Source(NamedTuple):
    """A source file as the cache describes it: its case, path, size in bytes and xxh3_64."""

    case: str
    path: Path
    num_bytes: int
    checksum: int


def verify_rows(caches: Sequence[Cache], num_threads: int, progress: Progress) -> list[Fault]:
    """Compares the rows of every case with their checksum.

    Everything else in a file was compared when it was opened.

    Args:
        caches: The caches.
        num_threads: Threads that read.
        progress: Called with the bytes done and all bytes as cases finish.

    Returns:
        A fault for each damaged case.
    """
    tasks = [(cache, case) for cache in caches for case in range(len(cache.cases))]
    sizes = [sum(part.num_bytes for part in cache.row_byte_ranges(case)) for cache, case in tasks]
    jobs = [partial(_check_rows, cache, case) for cache, case in tasks]
    return _run(jobs, sizes, num_threads, progress)


def verify_sources(caches: Sequence[Cache], num_threads: int, progress: Progress) -> list[Fault]:
    """Compares the scans with the size and checksum that the caches hold of them.

    Args:
        caches: The caches.
        num_threads: Threads that read.
        progress: Called with the bytes done and all bytes as files finish.

    Returns:
        A fault for each file that is missing or has changed.
    """
    # A 4-D file stands in for several roles of a case and is read once.
    sources = list(dict.fromkeys(source for cache in caches for source in _sources(cache)))
    jobs = [partial(_check_source, source) for source in sources]
    return _run(jobs, [source.num_bytes for source in sources], num_threads, progress)


def _run(
    jobs: Sequence[Callable[[], Fault | None]],
    sizes: Sequence[int],
    num_threads: int,
    progress: Progress,
) -> list[Fault]:
    """Runs all jobs in threads; their faults, in the order of the jobs."""
    faults: dict[int, Fault] = {}
    done, total = 0, sum(sizes)
    with ThreadPoolExecutor(num_threads) as pool:
        futures = {pool.submit(job): index for index, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                index = futures[future]
                if fault := future.result():
                    faults[index] = fault
                done += sizes[index]
                progress(done, total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [faults[index] for index in sorted(faults)]


def _check_rows(cache: Cache, case: int) -> Fault | None:
    wanted = int(cache.cases["checksum"][case])
    try:
        with open(cache.path, "rb") as file:
            found = read_rows_checksum(file.fileno(), cache.row_byte_ranges(case))
    except (OSError, ValueError) as error:
        what = f"rows that cannot be read ({error})"
    else:
        if found == wanted:
            return None
        what = f"rows with the checksum {found:016x}"
    return Fault(
        case=cache.case_id(case),
        path=cache.path,
        found=what,
        expected=f"{wanted:016x}, as they were written",
        remedy="Copy or build the file again.",
    )


def _sources(cache: Cache) -> Iterator[Source]:
    for case, record in enumerate(cache.cases):
        for name, num_bytes, checksum in zip(
            record["source_name"].tolist(),
            record["source_bytes"].tolist(),
            record["source_checksum"].tolist(),
            strict=True,
        ):
            if name:  # no mask, no name
                path = cache.source_path(case, name.decode())
                yield Source(record["id"].decode(), path, num_bytes, checksum)


def _check_source(source: Source) -> Fault | None:
    expected = f"{source.num_bytes} bytes with the checksum {source.checksum:016x}"
    try:
        status = source.path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be read for ever
            found = "no regular file"
        elif status.st_size != source.num_bytes:
            found = f"a changed scan: {status.st_size} bytes"
        else:
            checksum = _checksum_of(source.path, source.num_bytes)
            if checksum == source.checksum:
                return None
            found = f"a changed scan: checksum {checksum:016x}"
    except FileNotFoundError:
        found = "no such file"
    except (OSError, ValueError) as error:
        found = f"it cannot be read ({error})"
    return Fault(case=source.case, path=source.path, found=found, expected=expected)


def _checksum_of(path: Path, num_bytes: int) -> int:
    """xxh3_64 of at most the first `num_bytes` of a file."""
    digest, buffer, left = xxhash.xxh3_64(), bytearray(_CHUNK_BYTES), num_bytes
    with open(path, "rb") as file:
        while left:
            view = memoryview(buffer)[: min(_CHUNK_BYTES, left)]
            num_read = os.readv(file.fileno(), [view])
            if not num_read:
                break
            digest.update(view[:num_read])
            left -= num_read
    return digest.intdigest()
