"""Locks that end with their processes, however those end (flock on a file)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brats_cache.common.errors import BratsError, printable

__all__ = ["hold", "is_held"]


@contextmanager
def hold(path: Path) -> Iterator[int]:
    """Waits for a lock and holds it.

    Args:
        path: The lock's file; it is made where there is none, and stays.

    Yields:
        The descriptor of the file. A child process that inherits it holds the lock as well.

    Raises:
        BratsError: The file cannot be made, or its file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be written ({error.strerror}).") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise BratsError(
                f"{printable(path)}: its file system has no locks ({error.strerror}), by which "
                "processes share a study. Choose a --study folder on another one."
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool | None:
    """Whether a process holds a lock; None where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # two may look at once
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
