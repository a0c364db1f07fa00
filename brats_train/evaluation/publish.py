"""Putting an evaluation in place: one folder that is replaced whole."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from brats_cache.common.errors import BratsError, printable
from brats_cache.common.files import remove, sync_folder, write_atomically
from brats_train.evaluation.classification import labels_csv
from brats_train.evaluation.summary import cases_csv, to_json
from brats_train.runtime.distributed import World

if TYPE_CHECKING:
    from brats_train.evaluation.evaluate import Evaluation

__all__ = ["publish_evaluation", "scratch_masks"]

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h
_NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def scratch_masks(folder: Path, world: World) -> Iterator[Path]:
    """Makes a folder for masks that `publish_evaluation` puts in place.

    It lies beside `folder`, and is removed at the end where nothing was published.
    """
    scratch = _scratch_of(folder)
    try:
        if world.is_main:
            try:
                _refuse_file(folder)
                remove(scratch)
                (scratch / "masks").mkdir(parents=True)
            except OSError as error:
                raise BratsError(
                    f"{printable(folder)}: cannot be made ({error.strerror})."
                ) from error
        world.wait_for_main()  # nobody writes before it is there
        yield scratch / "masks"
    finally:
        if world.is_main:
            with suppress(OSError):
                remove(scratch)


def publish_evaluation(evaluation: Evaluation, folder: Path, masks: Path | None = None) -> None:
    """Replaces the evaluation in `folder` by a new one, in one step.

    A process that is killed leaves the old evaluation or the new one, never files of both. A link
    in its place is replaced; what it leads to stays.

    Args:
        evaluation: What cases.csv and summary.json are to hold.
        folder: Where it belongs, "RUN/eval/SPLIT".
        masks: The folder of `scratch_masks`, None for an evaluation without masks.

    Raises:
        BratsError: The folder cannot be written.
    """
    scratch = _scratch_of(folder)
    try:
        _refuse_file(folder)
        if masks is None:
            remove(scratch)
            scratch.mkdir(parents=True)
        write_atomically(scratch / "cases.csv", cases_csv(evaluation.cases).encode())
        if evaluation.classified:
            names = evaluation.summary["classification"]["classes"]
            table = labels_csv(evaluation.classified, names)
            write_atomically(scratch / "labels.csv", table.encode())
        write_atomically(scratch / "summary.json", to_json(evaluation.summary).encode())
        if os.path.lexists(folder):
            _exchange(scratch, folder)
            remove(scratch)
        else:
            os.rename(scratch, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise BratsError(f"{printable(folder)}: cannot be written ({error.strerror}).") from error


def _refuse_file(folder: Path) -> None:
    """Raises `BratsError` where something that is not an evaluation would be replaced."""
    if folder.exists() and not folder.is_dir():
        raise BratsError(
            f"{printable(folder)}: a file, where the folder of an evaluation belongs. Move it away."
        )


def _scratch_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _exchange(one: Path, other: Path) -> None:
    """Swaps two folders in one step (renameat2), or in two where the file system has no such."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if not libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        return
    number = ctypes.get_errno()
    if number not in _NOT_SUPPORTED:
        raise OSError(number, os.strerror(number))
    aside = one.with_name(f"{one.name}.old")
    remove(aside)
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)
