"""Executes the steps of a build in worker processes: check headers, survey cases, write rows.

The cache is written as `OUT.partial` and renamed once it is complete and synced, so a file under
its final name is complete. Rows depend on their case alone, so the bytes are the same for any
number of workers and after any interruption. The journal records every finished case at once, so
that a killed build can be resumed.
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

from brats_cache.build.case_voxels import KEPT_CASES
from brats_cache.build.journal import Journal, file_states
from brats_cache.build.plan import Plan
from brats_cache.build.survey import HeaderCheck, Survey, check_header, load_case
from brats_cache.build.workers import Mapper, Workers
from brats_cache.build.write_case import WriteTask, write_case
from brats_cache.build.writer import Layout, create, finish
from brats_cache.common.errors import BratsError, DataFaults, Fault, printable
from brats_cache.discovery.cases import Case
from brats_cache.format.row_checksum import read_rows_checksum
from brats_cache.imaging.grid import Grid
from brats_cache.imaging.preprocess import Preparation
from brats_cache.imaging.scan_check import check_mask, check_scans

__all__ = ["PartialBuild", "build", "check_headers", "open_partial", "survey_cases"]

Progress = Callable[[int, int], None]
SECONDS_BETWEEN_SYNCS = 0.5


def survey_cases(
    cases: Sequence[Case],
    preparation: Preparation,
    workers: Mapper,
    progress: Progress,
    journal: Journal | None = None,
    warnings: list[tuple[str, tuple[str, ...]]] | None = None,
) -> tuple[list[Survey], list[Fault]]:
    """Surveys cases.

    Args:
        cases: The cases.
        preparation: How their images will be prepared.
        workers: Runs what reads the scans.
        progress: Called with the numbers of finished and of all cases.
        journal: Its surveys of unchanged scans are reused, and new surveys are added to it. With
            one the cases will be written, so that worker processes keep what they decoded.
        warnings: Receives the id of each case that is read and the warnings about its scans, see
            `imaging.scan_check`.

    Returns:
        The surveys of the sound cases, in order, and the faults of the others.
    """
    surveys: dict[int, Survey] = {}
    for index, case in enumerate(cases):
        if journal and (known := journal.find_survey(case)):
            surveys[index] = known
    unknown = [index for index in range(len(cases)) if index not in surveys]
    faults: dict[int, tuple[Fault, ...]] = {}
    # A process of a cluster outlives this build.
    keep = journal is not None and isinstance(workers, Workers)
    function = partial(_survey_case, preparation=preparation, keep=keep)
    tasks = [cases[index] for index in unknown]
    for task, (answer, states, scan_warnings) in workers.map(function, tasks, _id_of):
        index = unknown[task]
        if warnings is not None:
            warnings.append((cases[index].id, scan_warnings))
        if isinstance(answer, Survey):
            surveys[index] = answer
            if journal:
                journal.add_survey(answer, states)
        else:
            faults[index] = answer
        progress(len(surveys) + len(faults), len(cases))
    ordered = [fault for index in sorted(faults) for fault in faults[index]]
    return [surveys[index] for index in sorted(surveys)], ordered


def check_headers(
    cases: Sequence[Case],
    preparation: Preparation,
    workers: Mapper,
    progress: Progress,
    *,
    with_masks: bool,
) -> tuple[list[HeaderCheck], list[Fault]]:
    """Checks the headers of cases.

    Args:
        cases: The cases.
        preparation: How their images will be prepared.
        workers: Runs what reads the files.
        progress: Called with the numbers of finished and of all cases.
        with_masks: Whether to read the masks as well.

    Returns:
        The checks of the sound cases, in order, and the faults of the others.
    """
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
    """A file under construction.

    Attributes:
        layout: Its byte layout.
        done: Checksum (xxh3_64) of the rows of each case that is written, by its index in the plan.
    """

    layout: Layout
    done: dict[int, int]


def open_partial(plan: Plan, journal: Journal) -> PartialBuild:
    """Opens the file under construction of a plan, or creates it.

    Args:
        plan: The plan.
        journal: The journal of the build.

    Returns:
        The layout of the file, and which cases are written.

    Raises:
        BratsError: A file of another plan exists, or the disk has too little space.
    """
    layout = journal.resume(plan)
    if layout is None:
        layout = create(journal.partial, plan)
        journal.start(plan, layout)
    is_written = partial(_is_written, plan, journal.partial, layout)
    done = journal.written_cases(len(plan.cases), is_written)
    return PartialBuild(layout=layout, done=done)


def build(
    plan: Plan, journal: Journal, state: PartialBuild, workers: Mapper, progress: Progress
) -> None:
    """Writes the cases that are not written yet and completes the file `journal.partial`.

    The file is synced and only has to be renamed.

    Args:
        plan: The plan.
        journal: Records every case as soon as its rows are written.
        state: The file under construction.
        workers: Runs what reads, prepares and writes cases.
        progress: Called with the numbers of written and of all rows.

    Raises:
        DataFaults: A source has changed since it was surveyed.
        BratsError: A write failed, or a worker died; the message names its case.
    """
    layout, done = state.layout, dict(state.done)
    unwritten = [index for index in range(len(plan.cases)) if index not in done]
    tasks = [
        WriteTask(
            path=journal.partial,
            layout=layout,
            case=plan.cases[index],
            preparation=plan.options.preparation,
        )
        for index in unwritten
    ]
    num_rows = sum(len(plan.cases[index].slices) for index in done)
    progress(num_rows, plan.num_rows)
    with _steady_writeback(journal):
        for task, checksum in workers.map(write_case, tasks, lambda task: task.case.id):
            index = unwritten[task]
            journal.mark(index, checksum)
            done[index] = checksum
            num_rows += len(plan.cases[index].slices)
            progress(num_rows, plan.num_rows)
    checksums = np.array([done[index] for index in range(len(plan.cases))], np.uint64)
    finish(journal.partial, plan, layout, checksums)


@contextmanager
def _steady_writeback(journal: Journal) -> Iterator[None]:
    """Syncs the file in a thread throughout the block, so that the disk writes during computation.

    Otherwise the system starts to write when gigabytes are dirty, and the last sync waits for all.
    """
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
    except KeyboardInterrupt:
        ended.set()  # and a slow disk is not waited for
        raise
    except BaseException:
        ended.set()
        thread.join()  # it uses the journal, which is closed next
        raise
    ended.set()
    thread.join()
    if failures:
        reason = failures[0].strerror
        raise BratsError(f"{printable(journal.partial)}: cannot be written ({reason}).")


def _is_written(plan: Plan, path: Path, layout: Layout, index: int, checksum: int) -> bool:
    """Whether the rows of a case in the file have this checksum."""
    case = plan.cases[index]
    with open(path, "rb") as file:
        byte_ranges = layout.rows(case.first_row, len(case.slices))
        return read_rows_checksum(file.fileno(), byte_ranges) == checksum


def _survey_case(
    case: Case, preparation: Preparation, *, keep: bool
) -> tuple[Survey | tuple[Fault, ...], list[list[object]], tuple[str, ...]]:
    """Surveys one case: its survey or faults, the state of its files, and scan warnings.

    With `keep` what was decoded stays in this process for `write_case`, if memory allows.
    """
    states = file_states(case)  # before reading, so that a change during it is noticed
    try:
        loaded = load_case(case, preparation)
    except DataFaults as error:
        return error.faults, states, ()
    if keep:
        KEPT_CASES.keep(loaded, states)
    grid = Grid(shape=loaded.survey.shape, affine=loaded.survey.affine)
    volumes = dict(zip(case.images, loaded.volumes, strict=True))
    warnings = check_scans(volumes, loaded.brain, grid.spacing_mm)
    return loaded.survey, states, warnings + check_mask(loaded.labels, loaded.brain)


def _check_header_of(
    case: Case, preparation: Preparation, with_mask: bool
) -> HeaderCheck | tuple[Fault, ...]:
    try:
        return check_header(case, preparation, with_mask=with_mask)
    except DataFaults as error:
        return error.faults


def _id_of(case: Case) -> str:
    return case.id
