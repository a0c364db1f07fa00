"""Unfinished files: their names, how they are made, and the removal of abandoned ones.

A partial is locked (flock) by the process that writes it, so that one that a killed process left is
known by its lock, on whatever host the process ran. Where a file system has no locks, partials stay
until a person removes them.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path

__all__ = ["PartialFile", "create_partial", "sweep_partials"]

_MAX_NAME_BYTES = 160  # of the final name; the whole stays below the 255 of file systems
_MAX_HOST_LENGTH = 16
_PATTERN = re.compile(r"\..+\.[A-Za-z0-9_-]+-[0-9a-f]{16}\.partial", re.DOTALL)


class PartialFile(io.FileIO):
    """An open partial that remembers the first failure of a write: libraries hide it behind errors
    of their own.

    Attributes:
        path: Its place.
        failure: The first error of a write, None for none.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(descriptor, "r+")
        self.path = path
        self.failure: OSError | None = None

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            self.failure = self.failure or error
            raise


def create_partial(final: Path) -> PartialFile:
    """Makes and locks a new file beside `final`, readable and writable, never through a link.

    Raises:
        OSError: The folder cannot be written.
    """
    name = final.name.encode(errors="surrogateescape")[:_MAX_NAME_BYTES].decode(errors="ignore")
    host = re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())[:_MAX_HOST_LENGTH] or "host"
    while True:
        path = final.with_name(f".{name}.{host}-{secrets.token_hex(8)}.partial")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        with suppress(OSError):  # no locks here
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(path, descriptor):
            return PartialFile(path, descriptor)
        os.close(descriptor)  # swept between being made and being locked


def sweep_partials(folder: Path) -> None:
    """Removes from a folder the partials whose processes have ended."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _PATTERN.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):  # in use, or gone
                    _remove_unlocked(folder / entry.name)


def _remove_unlocked(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(path, descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file has this name."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(descriptor))
