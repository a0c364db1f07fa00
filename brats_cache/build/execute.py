"""Carries a plan out: workers read, prepare and write each case's rows straight into their place.

The file is built as `OUT.partial` and renamed when it is whole and synced, so that a file under its
final name is complete. Rows depend on the case alone, so any number of workers, interrupted or not,
gives equal bytes. Every finished case is noted in the journal at once, so that a build that is
killed goes on where it stopped.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from brats_cache.build.journal import Journal, file_marks
from brats_cache.build.plan import Plan
from brats_cache.build.survey import HeaderCheck, Survey, check_header, load_case
from brats_cache.build.workers import Workers
from brats_cache.build.write_case import WriteTask, write_case
from brats_cache.build.writer import Layout, create, finish
from brats_cache.common.errors import BratsError, DataFaults, Fault, printable
from brats_cache.discovery.cases import Case
from brats_cache.format.row_checksum import read_rows_checksum
from brats_cache.imaging.grid import Grid
from brats_cache.imaging.preprocess import Preparation
from brats_cache.imaging.scan_check import check_scans

__all__ = ["PartialBuild", "build", "check_headers", "open_partial", "survey_cases"]

Progress = Callable[[int, int], None]
SECONDS_BETWEEN_SYNCS = 0.5


def survey_cases(
    cases: Sequence[Case],
    preparation: Preparation,
    workers: Workers,
    progress: Progress,
    journal: Journal | None = None,
    warnings: list[tuple[str, tuple[str, ...]]] | None = None,
) -> tuple[list[Survey], list[Fault]]:
    """Surveys every case.

    Args:
        cases: The cases.
        preparation: How their images will be prepared.
        workers: Processes that read the scans.
        progress: Called with the number of cases done and of all.
        journal: What it knows of unchanged scans is not read again; what is new is kept there.
        warnings: Takes the id of each case that is read and how its scans look, see
            `imaging.scan_check`.

    Returns:
        The surveys of the sound cases, in order, and the faults of the others.
    """
    surveys: dict[int, Survey] = {}
    for index, case in enumerate(cases):
        if journal and (known := journal.find(case)):
            surveys[index] = known
    unknown = [index for index in range(len(cases)) if index not in surveys]
    faults: dict[int, tuple[Fault, ...]] = {}
    function = partial(_survey_case, preparation=preparation)
    tasks = [cases[index] for index in unknown]
    for task, (answer, marks, looks) in workers.map(function, tasks, _id_of):
        index = unknown[task]
        if warnings is not None:
            warnings.append((cases[index].id, looks))
        if isinstance(answer, Survey):
            surveys[index] = answer
            if journal:
                journal.keep(answer, marks)
        else:
            faults[index] = answer
        progress(len(surveys) + len(faults), len(cases))
    ordered = [fault for index in sorted(faults) for fault in faults[index]]
    return [surveys[index] for index in sorted(surveys)], ordered


def check_headers(
    cases: Sequence[Case],
    preparation: Preparation,
    workers: Workers,
    progress: Progress,
    *,
    with_masks: bool,
) -> tuple[list[HeaderCheck], list[Fault]]:
    """Reads the headers of every case and, where asked, the masks: what the sound ones show, in
    order, and the faults of the others."""
    answers: dict[int, HeaderCheck | tuple[Fault, ...]] = {}
    function = partial(_check_header_of, preparation=preparation, with_mask=with_masks)
    for index, answer in workers.map(function, cases, _id_of):
        answers[index] = answer
        progress(len(answers), len(cases))
    ordered = [answers[index] for index in sorted(answers)]
    faults = [fault for one in ordered if isinstance(one, tuple) for fault in one]
    return [one for one in ordered if isinstance(one, HeaderCheck)], faults


@dataclass(frozen=True, kw_only=True)
class PartialBuild:
    """A file under construction: where things lie, and the checksum of the rows of each case that
    is written, by its number."""

    layout: Layout
    done: dict[int, int]


def open_partial(plan: Plan, journal: Journal) -> PartialBuild:
    """Finds the file under construction of this plan, or makes it.

    Raises `BratsError` where one of another plan is there, or where the disk cannot hold it.
    """
    layout = journal.agree(plan)
    if layout is None:
        layout = create(journal.partial, plan)
        journal.begin(plan, layout)
    done = journal.done(partial(_is_written, plan, journal.partial, layout))
    return PartialBuild(layout=layout, done=done)


def build(
    plan: Plan, journal: Journal, state: PartialBuild, workers: Workers, progress: Progress
) -> None:
    """Writes what is not done of the cache of `plan` and completes the file, `journal.partial`,
    which is then synced and lacks but its name. `progress(rows done, rows)` is called as cases
    finish.

    Raises `BratsError` where the disk fails, a worker dies (its case is named), or a source
    changed since it was surveyed.
    """
    layout, done = state.layout, dict(state.done)
    unwritten = [number for number in range(len(plan.cases)) if number not in done]
    tasks = [
        WriteTask(
            path=journal.partial,
            layout=layout,
            case=plan.cases[number],
            preparation=plan.options.preparation,
        )
        for number in unwritten
    ]
    num_rows = sum(len(plan.cases[number].slices) for number in done)
    progress(num_rows, plan.num_rows)
    with _steady_writeback(journal):
        for place, checksum in workers.map(write_case, tasks, lambda task: task.case.id):
            number = unwritten[place]
            journal.mark(number, checksum)
            done[number] = checksum
            num_rows += len(plan.cases[number].slices)
            progress(num_rows, plan.num_rows)
    checksums = np.array([done[number] for number in range(len(plan.cases))], np.uint64)
    finish(journal.partial, plan, layout, checksums)


@contextmanager
def _steady_writeback(journal: Journal) -> Iterator[None]:
    """Meanwhile a thread syncs again and again, so that the disk writes while the workers compute:
    left alone the system begins when gigabytes wait, and the last sync pays for them all."""
    ended, failures = threading.Event(), []
    descriptor = os.open(journal.partial, os.O_RDWR)

    def sync() -> None:
        try:
            while not ended.wait(SECONDS_BETWEEN_SYNCS):
                os.fdatasync(descriptor)
                journal.sync()
        except OSError as error:
            failures.append(error)
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=sync, name="writeback", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()  # who interrupts does not wait for a slow disk
    thread.join()
    if failures:
        reason = failures[0].strerror
        raise BratsError(f"{printable(journal.partial)}: cannot be written ({reason}).")


def _is_written(plan: Plan, path: Path, layout: Layout, number: int, checksum: int) -> bool:
    """Whether the rows of a case have this checksum."""
    if number >= len(plan.cases):
        return False
    case = plan.cases[number]
    with open(path, "rb") as file:
        places = layout.rows(case.first_row, len(case.slices))
        return read_rows_checksum(file.fileno(), places) == checksum


def _survey_case(
    case: Case, preparation: Preparation
) -> tuple[Survey | tuple[Fault, ...], list[list[object]], tuple[str, ...]]:
    """The survey or the faults of a case, the state of its files, and how its scans look."""
    marks = file_marks(case)  # before the files are read: a change meanwhile must show
    try:
        loaded = load_case(case, preparation)
    except DataFaults as error:
        return error.faults, marks, ()
    grid = Grid(shape=loaded.survey.shape, affine=loaded.survey.affine)
    volumes = dict(zip(case.images, loaded.volumes, strict=True))
    return loaded.survey, marks, check_scans(volumes, loaded.brain, grid.spacing_mm)


def _check_header_of(
    case: Case, preparation: Preparation, with_mask: bool
) -> HeaderCheck | tuple[Fault, ...]:
    try:
        return check_header(case, preparation, with_mask=with_mask)
    except DataFaults as error:
        return error.faults


def _id_of(case: Case) -> str:
    return case.id
