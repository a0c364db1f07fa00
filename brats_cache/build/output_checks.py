"""Checks what exists at the path of a cache to be built, and that the disk has room for it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from brats_cache.build.describe_plan import differences
from brats_cache.build.plan import Plan
from brats_cache.common.errors import BratsError, printable
from brats_cache.common.files import read_small_file
from brats_cache.common.text import first_few, human_bytes
from brats_cache.format.reader import open_cache

__all__ = [
    "check_disk_space",
    "check_is_cache",
    "check_is_no_input",
    "is_already_built",
    "splits_path",
]

DISK_MARGIN = 64 << 20  # bytes to stay free


def splits_path(out: Path) -> Path:
    """Returns the path of the table of splits of cache `out`: brats.splits.csv for brats.h5."""
    return out.with_name(f"{out.stem}.splits.csv")


def check_is_cache(out: Path) -> None:
    """Checks that an existing file is a cache, before the scans are read to compare it with them.

    Args:
        out: A path that exists.

    Raises:
        BratsError: It is no cache that this program can read.
    """
    try:
        open_cache(out)
    except BratsError as error:
        raise BratsError(
            f"{printable(out)}: exists and is no cache this program can read (brats info says "
            "why). Choose another --out, or replace it with --overwrite."
        ) from error


def check_is_no_input(outs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Checks that no file that a build reads would be replaced by what it writes.

    Raises:
        BratsError: One would be, as with --overwrite and the path of a scan.
    """
    of_file = {_file_of(out): out for out in outs if out.exists()}
    for path in inputs if of_file else ():
        if path.exists() and (out := of_file.get(_file_of(path))):
            raise BratsError(
                f"--out {printable(out)}: a file that this build reads. Choose another --out."
            )


def _file_of(path: Path) -> tuple[int, int]:
    """Which file a path leads to, whatever its name."""
    status = path.stat()
    return status.st_dev, status.st_ino


def is_already_built(out: Path, plan: Plan, split_table: bytes | None) -> bool:
    """Checks whether the planned cache exists already.

    Args:
        out: Path of the cache.
        plan: What would be built.
        split_table: Content of the table of splits that would be written beside it, None for none.

    Returns:
        True for an identical cache, False where there is none.

    Raises:
        BratsError: A different cache exists, or, without a cache, a different table of splits.
    """
    if out.exists():
        if found := differences(plan, open_cache(out)):
            lines = first_few([printable(line) for line in found], 10, "\n  ")
            raise BratsError(
                f"{printable(out)}: exists and differs from this build:\n  {lines}\n"
                "Choose another --out, or replace it with --overwrite."
            )
        return True
    path = splits_path(out)
    if split_table is not None and path.exists() and not _holds(path, split_table):
        raise BratsError(
            f"{printable(path)}: exists, and this build would put other patients or splits there. "
            "Move it away, choose another --out, or replace it with --overwrite."
        )
    return False


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_small_file(path) == content
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be read ({error.strerror}).") from error


def check_disk_space(out: Path, num_bytes: int) -> None:
    """Checks that the disk of `out` has room for a new cache.

    Args:
        out: Path of the cache; its folder need not exist.
        num_bytes: Size of the cache in bytes.

    Raises:
        BratsError: Less than `num_bytes` and `DISK_MARGIN` are free.
    """
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if free < num_bytes + DISK_MARGIN:
        raise BratsError(
            f"{printable(out)}: needs {human_bytes(num_bytes)}, the disk has {human_bytes(free)} "
            "free. Free some, choose another --out, or fewer --slices."
        )
