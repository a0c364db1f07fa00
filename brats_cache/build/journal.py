"""The journal of an unfinished build, a file of JSON lines beside the cache.

A killed build leaves `OUT.partial`, the file under construction, and `OUT.journal`. The journal
holds the surveys, which are reused for scans that have not changed, then the plan, then a line for
each case whose rows are written.

A torn or damaged line counts as not written, and its work is done again; see `journal_lines`.
Without the line of the plan the rows are written anew; without the first line nothing of the
journal is used.

The line of a case is written right after its rows, without waiting for the disk: the system keeps
what a killed process wrote. After a crash of the machine it may be lost, so the rows of lines from
before the last boot are compared with their checksum.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from brats_cache.build.journal_lines import JournalState, format_line, parse_lines
from brats_cache.build.journal_records import (
    build_differences,
    describe_build,
    describe_preparation,
    differing_values,
    survey_from_json,
    survey_to_json,
)
from brats_cache.build.plan import Plan
from brats_cache.build.survey import Survey
from brats_cache.build.writer import Layout, read_layout
from brats_cache.common.errors import BratsError, printable
from brats_cache.common.files import open_regular_file, sync_folder
from brats_cache.common.text import first_few
from brats_cache.discovery.cases import Case, Scan
from brats_cache.imaging.preprocess import Preparation

__all__ = ["Journal", "file_states", "journal_path", "partial_path", "sweep"]

_NUM_SHOWN = 8  # differences in a message


def partial_path(out: Path) -> Path:
    """Returns the path of the file under construction that becomes `out`."""
    return out.with_name(out.name + ".partial")


def journal_path(out: Path) -> Path:
    """Returns the path of the journal of cache `out`."""
    return out.with_name(out.name + ".journal")


class Journal:
    """The journal of one build, locked against other builds of the same cache.

    Attributes:
        path: The journal.
        partial: The file under construction.
    """

    def __init__(
        self, out: Path, preparation: Preparation, *, start_anew: bool, lock_timeout: float = 0
    ) -> None:
        """Opens the journal of a cache, or creates it.

        Args:
            out: Path of the cache.
            preparation: How images are prepared.
            start_anew: Discard a journal of another build instead of raising an error.
            lock_timeout: How long to wait for another process that holds the journal, in seconds.

        Raises:
            BratsError: Another process holds the journal, or it cannot be written, or rows were
                written with another `preparation` or by another version.
        """
        self.path = journal_path(out)
        self.partial = partial_path(out)
        self._may_drop = start_anew
        self._boot = _boot_id()
        self._descriptor = _open_locked(self.path, lock_timeout)
        try:
            self._state = parse_lines(_content_of(self.path))
            self._start_lines(describe_preparation(preparation))
        except BaseException:
            self.close()
            raise

    def find_survey(self, case: Case) -> Survey | None:
        """Returns the survey of a case whose files have not changed since, else None."""
        stored = self._state.surveys.get(case.id)
        if stored is None or stored["files"] != file_states(case):
            return None
        try:
            return survey_from_json(case, stored["content"])
        except (OverflowError, ValueError):
            return None  # the case is surveyed again

    def add_survey(self, survey: Survey, files: list[list[Any]]) -> None:
        """Records a survey.

        Args:
            survey: The survey.
            files: The `file_states` from before the files were read.
        """
        self._append({"survey": survey.case.id, "files": files, "content": survey_to_json(survey)})

    def resume(self, plan: Plan) -> Layout | None:
        """Returns the layout of the file under construction.

        Args:
            plan: The plan of this build.

        Returns:
            None where there is no such file yet, or it was discarded.

        Raises:
            BratsError: The file belongs to another plan; the message names the differences.
        """
        stored = self._state.plan
        if not stored:
            return None
        if differences := build_differences(stored, plan):
            self._refuse_or_drop(differences)
            return None
        layout = Layout(**stored["layout"])
        if read_layout(self.partial, plan) != layout:
            self._rewrite()
            return None
        return layout

    def start(self, plan: Plan, layout: Layout) -> None:
        """Records that the rows of a plan are being written from now on."""
        record = {"plan": describe_build(plan), "layout": asdict(layout)}
        self._append(record)
        self._state.plan = {**record["plan"], "layout": record["layout"]}
        self.sync()

    def written_cases(
        self, num_cases: int, is_written: Callable[[int, int], bool]
    ) -> dict[int, int]:
        """Returns the checksum of the rows of each written case, by its index in the plan.

        Args:
            num_cases: Number of cases of the plan.
            is_written: Called with index and checksum of a case that was written before the last
                boot; whether its rows have this checksum.
        """
        return {
            index: int(line["checksum"], 16)
            for index, line in self._state.done.items()
            if 0 <= index < num_cases
            and (line["boot"] == self._boot or is_written(index, int(line["checksum"], 16)))
        }

    @property
    def has_plan(self) -> bool:
        """Whether rows are being written."""
        return bool(self._state.plan)

    def mark(self, index: int, checksum: int) -> None:
        """Records that the rows of a case are written.

        Args:
            index: Index of the case in the plan.
            checksum: xxh3_64 of its rows.
        """
        self._append({"done": index, "checksum": f"{checksum:016x}", "boot": self._boot})

    def sync(self) -> None:
        """Waits until all lines are on the disk; does nothing once the journal is closed."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)

    def remove(self) -> None:
        """Removes the journal of a build that is finished, or that wrote no rows."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Closes and unlocks the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)  # which unlocks it
            self._descriptor = -1

    def _start_lines(self, head: dict[str, Any]) -> None:
        state = self._state
        if state.head and state.head != head:
            if state.plan:
                self._refuse_or_drop(differing_values(state.head, head))
            self._state = state = JournalState()
        if not state.head:
            self._state = JournalState(head=head)
            self._rewrite()
        os.ftruncate(self._descriptor, self._state.num_bytes)  # cuts a torn end off

    def _refuse_or_drop(self, differences: list[str]) -> None:
        if not self._may_drop:
            lines = first_few([printable(line) for line in differences], _NUM_SHOWN, "\n  ")
            raise BratsError(
                f"{printable(self.partial)}: begun by another build:\n  {lines}\n"
                "Undo that to go on with it, or start anew with --overwrite."
            )
        self._rewrite()

    def _rewrite(self) -> None:
        """Discards everything but the surveys, and the file under construction."""
        self._state.plan, self._state.done = {}, {}
        surveys = [{"survey": name, **kept} for name, kept in self._state.surveys.items()]
        lines = [format_line({"build": self._state.head}), *map(format_line, surveys)]
        os.ftruncate(self._descriptor, 0)
        self._state.num_bytes = sum(map(len, lines))
        self._write(b"".join(lines))
        self.partial.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _append(self, record: dict[str, Any]) -> None:
        self._write(format_line(record))

    def _write(self, content: bytes) -> None:
        try:
            written = os.write(self._descriptor, content)
        except OSError as error:
            raise BratsError(
                f"{printable(self.path)}: cannot be written ({error.strerror})."
            ) from error
        if written < len(content):
            raise BratsError(f"{printable(self.path)}: cannot be written (the disk is full).")


def sweep(out: Path) -> None:
    """Removes the journal of a build that was killed between publishing its cache and doing so.

    Args:
        out: Path of the cache.
    """
    path = journal_path(out)
    if out.exists() and path.exists() and not partial_path(out).exists():
        with contextlib.suppress(BratsError):  # another build has just opened it
            descriptor = _open_locked(path)
            path.unlink(missing_ok=True)
            os.close(descriptor)


def file_states(case: Case) -> list[list[Any]]:
    """Reads the state of every file that a survey reads.

    Returns:
        For each role in turn the DATA argument, the path, the channel, the size in bytes and the
        time of change in ns: all that a survey depends on beside the files' content.
    """
    scans = [
        *case.images.values(),
        *([case.mask] if case.mask else []),
        *(Scan(path=path) for path in case.unclaimed),
    ]
    states = []
    for scan in scans:
        try:
            status = scan.path.stat()
            size, changed = status.st_size, status.st_mtime_ns
        except OSError:
            size, changed = 0, 0
        states.append([str(case.data_dir), str(scan.path), scan.channel, size, changed])
    return states


def _open_locked(path: Path, timeout: float = 0) -> int:
    """Opens and locks a file, with at least one attempt and one a second for `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return _try_to_lock(path)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise BratsError(
                    f"{printable(path)}: another build of this file is running. Wait for it, or "
                    "choose another --out."
                ) from None
        time.sleep(1)


def _try_to_lock(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be written ({error.strerror}).") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        pass  # some network file systems have no locks
    return descriptor


def _content_of(path: Path) -> bytes:
    try:
        with open_regular_file(path) as file:
            return file.read()
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be read ({error.strerror}).") from error


def _boot_id() -> str:
    """Returns the id of this boot of the system; a random one, equal to no other, if unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.urandom(16).hex()
