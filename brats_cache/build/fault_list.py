"""Lists of faults that are too long for a terminal, written to a file beside the cache."""

from __future__ import annotations

from pathlib import Path

from brats_cache.common.errors import BratsError, DataFaults, printable
from brats_cache.common.files import write_atomically

__all__ = ["MAX_FAULTS_SHOWN", "shorten_faults"]

MAX_FAULTS_SHOWN = 20


def shorten_faults(error: DataFaults, out: Path) -> DataFaults:
    """Writes a long list of faults to a file and shortens the message.

    Args:
        error: The faults.
        out: Path of the cache. The list becomes OUT.faults.txt beside it, or in the nearest
            existing folder above.

    Returns:
        The error itself for at most `MAX_FAULTS_SHOWN` faults, and where the list cannot be
        written; else an error with the same faults and at most `MAX_FAULTS_SHOWN` lines, which
        names the file.
    """
    if len(error.faults) <= MAX_FAULTS_SHOWN:
        return error
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    path = out if out.parent.is_dir() else folder / out.name
    path = path.with_name(f"{out.name}.faults.txt")
    lines = "".join(f"{fault}\n" for fault in error.faults)
    try:
        write_atomically(path, lines.encode())
    except BratsError:  # the faults matter more than the list
        return error
    advice = f"{error.advice} All {len(error.faults)} are listed in {printable(path)}.".strip()
    return DataFaults(error.faults, advice, MAX_FAULTS_SHOWN)
