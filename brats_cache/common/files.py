"""Files that exist whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from brats_cache.common.errors import BratsError

__all__ = ["publish", "sync_folder", "write_atomically"]


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Writes `path` through a neighbour that is synced and renamed, so that a crash or a full disk
    leaves either the old file or the new one. `content` is the bytes, or a function that writes
    them to an open binary file. Raises `BratsError` naming the file where that fails."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(partial, path)
    except OSError as error:
        raise BratsError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        partial.unlink(missing_ok=True)


def publish(partial: Path, final: Path) -> None:
    """Gives a synced file its final name, durably."""
    os.replace(partial, final)
    sync_folder(final.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
