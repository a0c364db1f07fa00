"""Where a study is kept: a journal file in its folder, or a database."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from brats_cache.common.errors import BratsError, first_line, printable
from brats_train.tuning.locks import hold

__all__ = ["JOURNAL", "forged_records", "open_storage", "storage_faults"]

JOURNAL = "journal.log"
_SQLITE_SECONDS = 60  # to wait for another process that writes


class _JournalLock(JournalFileOpenLock):
    """The lock of a journal.

    Optuna's own are files that a killed process leaves behind, which others wait 30 s for.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._stack = path, ExitStack()

    def acquire(self) -> bool:
        self._stack.enter_context(hold(self._path))
        return True

    def release(self) -> None:
        self._stack.close()


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Opens the storage of a study.

    Args:
        url: A database as Optuna and SQLAlchemy name it; None for the journal in the folder.
        folder: The folder of the study, which exists.

    Raises:
        BratsError: It cannot be opened.
    """
    if url is None:
        path = folder / JOURNAL
        with storage_faults(printable(path)), hold(path):
            _cut_torn_line(path)
        with storage_faults(printable(path)):
            return JournalStorage(JournalFileBackend(str(path), lock_obj=_JournalLock(path)))
    # A password in the address is not for messages.
    shown = printable(re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url))
    is_sqlite = url.startswith("sqlite:")
    arguments = {"connect_args": {"timeout": _SQLITE_SECONDS}} if is_sqlite else {}
    try:
        return RDBStorage(url, engine_kwargs=arguments)
    except Exception as error:  # SQLAlchemy's, the driver's, or none is installed
        raise BratsError(
            f"--storage {shown}: cannot be opened ({first_line(error)}). Expected a database, such "
            "as sqlite:///study.db or postgresql://user@host/name, and its driver installed."
        ) from error


@contextmanager
def storage_faults(name: str) -> Iterator[None]:
    """Within it a fault of the storage, such as a full disk, is a `BratsError` that names it."""
    try:
        yield
    except (OSError, optuna.exceptions.StorageInternalError) as error:
        if isinstance(error, BratsError | BrokenPipeError):  # the pipe is that of the output
            raise
        raise BratsError(
            f"{name}: the study cannot be kept ({first_line(error)}). Every trial that was "
            "finished is kept; put it right and type the same command again."
        ) from error
    except ValueError as error:
        if not isinstance(error, json.JSONDecodeError) and "log format" not in str(error):
            raise
        raise BratsError(
            f"{name}: damaged, a line in it is no record. Put back a copy, or choose another "
            "--study."
        ) from error


@contextmanager
def forged_records(folder: Path) -> Iterator[None]:
    """Within it a study is read for the first time, whose records may be anything."""
    try:
        yield
    except (OSError, optuna.exceptions.StorageInternalError, BratsError):
        raise
    except Exception as error:  # what Optuna raises for a record that it did not write
        raise BratsError(
            f"{printable(folder)}: its storage is damaged, a record in it is none of Optuna "
            f"({type(error).__name__}: {first_line(error)}). Put back a copy, or choose another "
            "--study."
        ) from error


def _cut_torn_line(path: Path) -> None:
    """Removes a last line that a full disk has cut, after which the journal could not be read."""
    with open(path, "rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)
            os.fsync(file.fileno())
