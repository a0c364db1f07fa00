"""Carries a plan out: workers read, prepare and write each case's rows straight into their place.

The file is built as `OUT.partial` and renamed when it is whole and synced, so that a file under its
final name is complete. Rows depend on the case alone, so any number of workers gives equal bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from . import store
from .cases import Case
from .errors import BratsError, DataFaults, Fault
from .files import publish
from .labels import canonical_table
from .plan import Plan, PlannedCase
from .preprocess import Preparation, brain_of, fit_masks, prepare_images
from .survey import Survey, load_case, load_images, load_labels
from .workers import Workers

__all__ = ["build", "survey_cases"]

Progress = Callable[[int, int], None]


def survey_cases(
    cases: Sequence[Case], preparation: Preparation, workers: Workers, progress: Progress
) -> tuple[list[Survey], list[Fault]]:
    """Surveys every case; the surveys of the sound ones, in order, and the faults of the others."""
    surveys: dict[int, Survey] = {}
    faults: dict[int, tuple[Fault, ...]] = {}
    function = partial(_survey_case, preparation=preparation)
    for done, (index, answer) in enumerate(workers.map(function, cases, _id_of), start=1):
        if isinstance(answer, Survey):
            surveys[index] = answer
        else:
            faults[index] = answer
        progress(done, len(cases))
    ordered = [fault for index in sorted(faults) for fault in faults[index]]
    return [surveys[index] for index in sorted(surveys)], ordered


def build(plan: Plan, out: Path, workers: Workers, progress: Progress) -> None:
    """Writes the cache of `plan` to `out`; `progress(rows done, rows)` is called as cases finish.

    Raises `BratsError` where the disk is full, a worker dies (its case is named), or a source
    changed since it was surveyed. Nothing appears under `out` unless it is complete.
    """
    unfinished = out.with_name(out.name + ".partial")
    unfinished.unlink(missing_ok=True)
    layout = store.create(unfinished, plan)
    tasks = [
        WriteTask(path=unfinished, layout=layout, case=case, preparation=plan.options.preparation)
        for case in plan.cases
    ]
    checksums = np.zeros(len(tasks), np.uint64)
    num_done = 0
    for index, checksum in workers.map(write_case, tasks, lambda task: task.case.id):
        checksums[index] = checksum
        num_done += len(plan.cases[index].slices)
        progress(num_done, plan.num_rows)
    store.finish(unfinished, plan, layout, checksums)
    publish(unfinished, out)


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """One case for a worker: everything it needs and no voxel."""

    path: Path
    layout: store.Layout
    case: PlannedCase
    preparation: Preparation


def write_case(task: WriteTask) -> int:
    """Prepares and writes the rows of one case; returns their checksum."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    case, layout = task.case, task.layout
    images, masks = prepare_case(case, task.preparation)
    descriptor = os.open(task.path, os.O_WRONLY)
    try:
        _write(descriptor, images, layout.images_offset + case.first_row * layout.image_row_bytes)
        _write(descriptor, masks, layout.masks_offset + case.first_row * layout.mask_row_bytes)
    except OSError as error:
        raise BratsError(f"{task.path}: cannot be written ({error.strerror}).") from error
    finally:
        os.close(descriptor)
    return store.rows_checksum(images, masks)


def prepare_case(case: PlannedCase, preparation: Preparation) -> tuple[np.ndarray, np.ndarray]:
    """(n, C, S, S) float16 images and (n, 1, S, S) uint8 canonical masks of a case's rows."""
    survey, rows, size = case.survey, case.slices, preparation.size
    volumes = load_images(survey.case)
    brain = brain_of(volumes)
    images = prepare_images(volumes, brain, survey.normalizations, preparation, rows)
    masks = np.zeros((len(rows), 1, size, size), np.uint8)
    if survey.case.mask is not None:
        labels = canonical_table(case.scheme)[load_labels(survey.case)[rows]]
        masks[:, 0] = fit_masks(labels, size, preparation.fit)
    return images, masks


def _write(descriptor: int, array: np.ndarray, offset: int) -> None:
    """All of `array`, however many calls it takes: one pwrite moves at most 2 GiB."""
    remaining = array.reshape(-1).view(np.uint8).data
    while remaining:
        written = os.pwrite(descriptor, remaining, offset)
        remaining, offset = remaining[written:], offset + written


def _survey_case(case: Case, preparation: Preparation) -> Survey | tuple[Fault, ...]:
    try:
        return load_case(case, preparation).survey
    except DataFaults as error:
        return error.faults


def _id_of(case: Case) -> str:
    return case.id
