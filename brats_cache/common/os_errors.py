"""Turns an `OSError` that no module expected into one message instead of a traceback."""

from __future__ import annotations

import errno
import os

from brats_cache.common.errors import BratsError, printable

__all__ = ["refused_by_system"]

_WAYS_OUT = {
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EACCES: "Give yourself the right to it, or choose another.",
    errno.EPERM: "Give yourself the right to it, or choose another.",
    errno.EROFS: "Choose a place that can be written.",
    errno.ENOSPC: "Free space there, or choose another place.",
    errno.EDQUOT: "Free space there, or choose another place.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.ENFILE: "Close other programs.",
    errno.EIO: "Look after the disk, and copy what it holds.",
}
_OTHERWISE = "Look at what lies there, or choose another. --debug shows where this arose."


def refused_by_system(error: BaseException) -> BratsError | None:
    """The message for an error of the system that no module has put into words.

    Every look at a path can fail so (`Path.exists` too, where a name is too long or a folder above
    is closed), more often than can be foreseen at each.

    Returns:
        None for an error that names no file and is none of the machine's limits: a defect.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.filename is None and error.errno not in _WAYS_OUT:
        return None
    where = "The disk" if error.filename is None else printable(_text(error.filename))
    way_out = _WAYS_OUT.get(error.errno, _OTHERWISE)
    return BratsError(f"{where}: cannot be used ({printable(error.strerror)}). {way_out}")


def _text(filename: str | bytes | int) -> str:
    return os.fsdecode(filename) if isinstance(filename, bytes) else str(filename)
