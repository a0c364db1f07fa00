"""The file metrics.csv of a run: a header and one row an epoch.

A row is written by one call and synced. A row that is not whole, which a full disk or an older
version can leave at the end, is not read, and is removed when the run goes on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from brats_cache.common.errors import BratsError, printable
from brats_cache.common.files import read_small_file, sync_folder, write_atomically

__all__ = ["METRIC_COLUMNS", "append_row", "cut_rows", "read_rows"]

METRIC_COLUMNS = (
    *("epoch", "lr", "train_loss", "train_bce", "train_iou_loss", "train_iou"),
    *("val_loss", "val_bce", "val_iou_loss", "val_iou", "seconds", "slices_per_s", "wait_pct"),
)
_MAX_EPOCHS, _MAX_VALUE = 1e9, 1e30  # no training writes more, and no figure can show it
_HEADER = ",".join(METRIC_COLUMNS) + "\n"


def append_row(path: Path, row: Mapping[str, float]) -> None:
    """Adds one epoch, durably, whole or not at all.

    Args:
        path: The file; it is made where there is none.
        row: A number for each of METRIC_COLUMNS.

    Raises:
        BratsError: The file cannot be written.
    """
    line = ",".join(f"{row[name]:.10g}" for name in METRIC_COLUMNS) + "\n"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            _append(descriptor, (line if size else _HEADER + line).encode(), size)
        finally:
            os.close(descriptor)
        if not size:
            sync_folder(path.parent)
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be written ({error.strerror}).") from error


def _append(descriptor: int, content: bytes, size: int) -> None:
    """Writes all of `content` at the end of a file of `size` bytes, or leaves the file as it is."""
    try:
        written = os.write(descriptor, content)
        if written < len(content):  # the disk is full; the rest says so
            os.write(descriptor, content[written:])
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def read_rows(path: Path) -> list[dict[str, float]]:
    """Reads the whole rows.

    Returns:
        A mapping of METRIC_COLUMNS for each epoch; none where there is no file.

    Raises:
        BratsError: The file cannot be read, or has another header.
    """
    return [dict(zip(METRIC_COLUMNS, values, strict=True)) for _, values in _whole_rows(path)]


def cut_rows(path: Path, num_epochs: int) -> None:
    """Keeps the whole rows of the first `num_epochs` epochs; a run that is resumed does the later
    ones again.

    Raises:
        BratsError: The file cannot be read or written, or has another header.
    """
    if path.exists():
        kept = [line for line, values in _whole_rows(path) if values[0] <= num_epochs]
        write_atomically(path, "".join([_HEADER, *kept]).encode() if kept else b"")


def _whole_rows(path: Path) -> list[tuple[str, list[float]]]:
    """Lines and their values, up to the first that is torn."""
    try:
        content = read_small_file(path).decode("ascii", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be read ({error.strerror}).") from error
    lines = content.splitlines(keepends=True)
    if not lines or not lines[0].endswith("\n"):
        return []
    if lines[0] != _HEADER:
        raise BratsError(
            f"{printable(path)}: its first line is {printable(lines[0][:80].rstrip())!r}; expected "
            f"{_HEADER.rstrip()!r}. Put back the file that the run wrote, or remove it."
        )
    rows = []
    for line in lines[1:]:
        values = _values(line)
        if values is None:
            break
        rows.append((line, values))
    return rows


def _values(line: str) -> list[float] | None:
    """The numbers of a line, None where it is torn."""
    try:
        values = [float(text) for text in line.split(",")]
    except ValueError:
        return None
    if not line.endswith("\n") or len(values) != len(METRIC_COLUMNS):
        return None
    is_epoch = values[0].is_integer() and 0 < values[0] < _MAX_EPOCHS
    is_drawable = not any(_MAX_VALUE < abs(value) < math.inf for value in values)
    return values if is_epoch and is_drawable else None
