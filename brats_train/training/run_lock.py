"""The lock of a run directory: one command at a time writes into it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from brats_cache.common.errors import BratsError, print_message, printable

__all__ = ["LOCK_NAME", "run_lock"]

LOCK_NAME = ".lock"
_MAX_HOLDER_BYTES = 500
_noted: set[Path] = set()  # folders that cannot be locked and were named already


@contextmanager
def run_lock(folder: Path, command: str) -> Iterator[None]:
    """Holds the lock of a folder while a command writes into it.

    The lock belongs to the open lock file (flock), so it ends with the process, however that ends.
    The file says who holds it and is removed afterwards; one that a killed process left is taken
    over. Where the file system has no locks a note says so once.

    Args:
        folder: An existing folder.
        command: Who writes, such as "brats train".

    Raises:
        BratsError: Another process holds the lock, or the folder cannot be written.
    """
    path = folder / LOCK_NAME
    try:
        descriptor = _open_locked(path)
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be written ({error.strerror}).") from error
    try:
        holder = f"{command}, process {os.getpid()} on {socket.gethostname()}"
        with suppress(OSError):  # on a full disk it holds as well, without a name
            os.ftruncate(descriptor, 0)
            os.write(descriptor, holder.encode())
        yield
    finally:
        with suppress(OSError):  # a folder that was removed meanwhile
            path.unlink()  # before the lock is released, so that it is this process's own
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    """Opens and locks the lock file; again where its last holder has just removed it."""
    while True:
        descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, _MAX_HOLDER_BYTES).decode(errors="replace")
            os.close(descriptor)
            raise BratsError(
                f"{printable(path.parent)}: in use by {printable(holder) or 'another process'}. "
                "Wait for it, or choose another --run-dir."
            ) from None
        except OSError as error:
            _note_missing_locks(path.parent, error)
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def _note_missing_locks(folder: Path, error: OSError) -> None:
    """Says once that a folder cannot be locked."""
    if folder not in _noted:
        _noted.add(folder)
        print_message(
            f"{printable(folder)}: its file system has no locks ({error.strerror}), so make sure "
            "that only one command at a time writes into it.",
            prefix="Note: ",
        )
