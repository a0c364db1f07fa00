"""Files that exist whole or not at all, and files from outside that are read with care."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from brats_cache.common.errors import BratsError, printable
from brats_cache.common.partials import create_partial, sweep_partials

__all__ = [
    "MAX_TEXT_BYTES",
    "check_replaceable",
    "open_regular_file",
    "publish",
    "read_json",
    "read_small_file",
    "remove",
    "sweep_partials",
    "sync_folder",
    "write_atomically",
]

MAX_TEXT_BYTES = 64 << 20  # a table, JSON or TOML file; a manifest of 100,000 cases takes half
_swept: set[Path] = set()  # folders that this process has swept
_DEVICES = Path("/dev")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Writes a file whole or not at all: a crash or a full disk leaves the old file or the new one.

    It is written beside its place, synced and renamed. The first time that a process writes into a
    folder, what killed processes left half written there is removed.

    Args:
        path: The file.
        content: Its bytes, or a function that writes them to a file open for reading and writing.

    Raises:
        BratsError: It cannot be written.
    """
    try:
        _check_replaceable(path)
        if path.parent not in _swept:
            sweep_partials(path.parent)
            _swept.add(path.parent)
        partial = create_partial(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with partial, io.BufferedRandom(partial) as file:
            if callable(content):
                content(file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
            publish(partial.path, path)
    except Exception as error:
        cause = partial.failure or error
        if not isinstance(cause, OSError):
            raise
        raise _unwritable(path, cause) from error
    finally:
        partial.path.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> BratsError:
    way_out = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        way_out = " Free space there, or choose another place."
    if error.errno in (errno.EINVAL, errno.EISDIR):
        way_out = " Choose another name."
    return BratsError(f"{printable(path)}: cannot be written ({error.strerror or error}).{way_out}")


def publish(partial: Path, final: Path) -> None:
    """Gives a synced file its final name, durably.

    Raises:
        OSError: Under that name lies what is no file, such as /dev/null, which a rename by root
            would replace for every program; `strerror` says so in words.
    """
    _check_replaceable(final)
    os.replace(partial, final)
    sync_folder(final.parent)


def check_replaceable(path: Path) -> None:
    """Checks that no pipe or device lies under a name that a file is to get, see `publish`.

    Raises:
        BratsError: One does.
    """
    try:
        _check_replaceable(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _check_replaceable(path: Path) -> None:
    """Raises `OSError` where a rename would replace something other than a file or a dead link."""
    folder = path.parent.resolve()
    if folder == _DEVICES or folder.is_relative_to("/proc"):  # /dev/stdout is a link to there
        raise OSError(errno.EINVAL, "a name of the system, not a regular file", str(path))
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except OSError:
        return  # nothing there, or the rename says what is wrong
    if kind not in (stat.S_IFREG, stat.S_IFDIR):  # a folder makes the rename fail
        found = f"{_KINDS.get(kind, 'no file')}, not a regular file"
        raise OSError(errno.EINVAL, found, str(path))


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Removes a file, a folder with all it holds, or a link, whose target stays; if it is there.

    Raises:
        OSError: It cannot be removed.
    """
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except IsADirectoryError:
        shutil.rmtree(path)


def open_regular_file(path: Path) -> BinaryIO:
    """Opens a file for reading, of which there must be one: no pipe, device or folder.

    Those could block for ever or never end. Links are followed.

    Raises:
        OSError: It is no regular file, or cannot be opened; `strerror` says so in words.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        found = f"{_KINDS.get(kind, 'no file')}, not a regular file"
        raise OSError(errno.EINVAL, found, str(path))
    return open(descriptor, "rb")


def read_small_file(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Reads the whole of a regular file that came from outside.

    Args:
        path: The file.
        max_bytes: Largest size that is read.

    Raises:
        OSError: As `open_regular_file`, or it is larger; `strerror` says so in words.
    """
    with open_regular_file(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes:,} bytes", str(path))
    return content


def read_json(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> Any:
    """Reads a JSON file that came from outside.

    Args:
        path: A file in UTF-8, with or without a byte order mark.
        max_bytes: Largest size that is read.

    Raises:
        OSError: As `read_small_file`.
        ValueError: It is no JSON in UTF-8, nested too deep, or holds a number of too many digits;
            the message says what, and where that is known the line.
    """
    content = read_small_file(path, max_bytes)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: bytes that are not UTF-8") from None
    except RecursionError:
        raise ValueError("values nested too deep") from None
    except ValueError:  # Python converts integers of at most 4,300 digits
        raise ValueError("a number of too many digits") from None
