"""Faults that an image file can have before its header is understood."""

from __future__ import annotations

from pathlib import Path

from brats_cache.common.errors import DataFaults, file_fault

__all__ = ["damaged_file", "truncated_file", "unreadable_file"]

_COPY_AGAIN = "Download or copy the file again."


def damaged_file(path: Path, error: Exception) -> DataFaults:
    """Makes the error for compressed data that cannot be inflated."""
    found = f"damaged or truncated gzip data ({error})"
    return file_fault(path, found, "a whole file", _COPY_AGAIN)


def truncated_file(path: Path, num_found: int, num_wanted: int) -> DataFaults:
    """Makes the error for a file of `num_found` bytes that should have `num_wanted`."""
    found = f"a truncated file: {num_found} bytes"
    return file_fault(path, found, f"at least {num_wanted}", _COPY_AGAIN)


def unreadable_file(path: Path, error: OSError) -> DataFaults:
    """Makes the error for a file that the system does not let be read."""
    found = f"it cannot be read ({error.strerror or error})"
    return file_fault(path, found, "a readable NIfTI file")
