"""Scoring a run, or masks made elsewhere, on a split: by case on the scan's own grid, and by slice.

The model runs here; what follows it runs in processes beside it, and ranks share the cases out. No
score depends on how many of either there are.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.files import write_atomically
from brats_cache.common.process import die_with, interrupts_held, usable_cores
from brats_cache.format.reader import Cache
from brats_train.data.selection import case_splits, rows_by_rule
from brats_train.evaluation.case_scores import CaseScores, Predicted, Rules, ScoringTask, score_case
from brats_train.evaluation.metrics import EmptyRule
from brats_train.evaluation.summary import cases_csv, summarise, to_json
from brats_train.inference.ensemble import Ensemble, to_native
from brats_train.inference.postprocess import grid_of
from brats_train.runtime.distributed import World, same_error_on_all_ranks

__all__ = [
    "SLICE_THRESHOLD",
    "Evaluation",
    "EvaluationJob",
    "evaluate",
    "evaluate_files",
    "publish_evaluation",
    "scratch_masks",
]

SLICE_THRESHOLD = 0.5  # the training loop's, so that slice_iou and val_iou are one figure
MAX_PROCESSES = 8
MIN_CASES_FOR_PROCESSES = 4  # they take a second or two to start
Progress = Callable[[int, int], None]
CaseOfCache = tuple[Cache, int]


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What `brats eval` was asked to do.

    rows       rule of the rows that the slice-wise score counts, as in the recipe
    fold       as in training
    tta        None for what training chose
    threshold  None for what training chose; the slice-wise score then takes 0.5, as training does
    """

    split: str
    rows: str
    fold: int | None
    empty: EmptyRule
    tta: bool | None = None
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """All cases of a split, in order of their ids, and the summary."""

    cases: tuple[CaseScores, ...]
    summary: dict[str, Any]


def evaluate(
    job: EvaluationJob,
    caches: Sequence[Cache],
    ensemble: Ensemble,
    world: World,
    progress: Progress,
    masks_to: Path | None = None,
) -> Evaluation:
    """Scores every case of the split; ranks share the cases out and all receive the result.

    masks_to  an existing folder for the predicted masks, `<case>.nii.gz`

    Raises `BratsError` for a split without cases, or without masks.
    """
    segmenter = ensemble.segmenter
    tta = segmenter.tta if job.tta is None else job.tta
    rules = Rules(
        regions=segmenter.regions,
        slice_rows=job.rows,
        threshold=segmenter.threshold if job.threshold is None else job.threshold,
        min_component_voxels=segmenter.min_component_voxels,
        empty=job.empty,
    )
    slice_threshold = SLICE_THRESHOLD if job.threshold is None else job.threshold
    with same_error_on_all_ranks():
        cases = _cases_of(job, caches)
    tasks = (
        _ask_model(case, rules, slice_threshold, ensemble, tta, masks_to)
        for case in cases[world.rank :: world.size]
    )
    scored = _score_all(tasks, len(cases[world.rank :: world.size]), world, progress, spare=1)
    facts = {
        "threshold": rules.threshold,
        "slice_threshold": slice_threshold,
        "tta": tta,
        "min_component_voxels": rules.min_component_voxels,
        "amp": ensemble.amp,
        "checkpoints": [
            {"path": str(path), "fingerprint": fingerprint}
            for path, fingerprint in zip(ensemble.paths, ensemble.fingerprints, strict=True)
        ],
    }
    return _gather(job, rules, caches, scored, world, facts)


def evaluate_files(
    job: EvaluationJob,
    regions: Sequence[str],
    folder: Path,
    caches: Sequence[Cache],
    world: World,
    progress: Progress,
) -> Evaluation:
    """Scores the masks in `folder`, `<case>.nii.gz` or `<case>.nii`, without any model.

    Raises `BratsError` as `evaluate` does, and `DataFaults` with every mask that is missing or
    cannot be used.
    """
    rules = Rules(
        regions=tuple(regions),
        slice_rows=job.rows,
        threshold=SLICE_THRESHOLD,
        min_component_voxels=0,
        empty=job.empty,
    )
    with same_error_on_all_ranks():
        cases = _cases_of(job, caches)
        files = _find_masks(folder, [_id_of(case) for case in cases])
    mine = list(zip(cases, files, strict=True))[world.rank :: world.size]
    tasks = (
        ScoringTask(cache_path=cache.path, case=index, rules=rules, predicted=file)
        for (cache, index), file in mine
    )
    scored = _score_all(tasks, len(mine), world, progress, spare=0)
    return _gather(job, rules, caches, scored, world, {"predictions": str(folder)})


@contextmanager
def scratch_masks(folder: Path, world: World) -> Iterator[Path]:
    """A folder for masks that `publish_evaluation` puts in place; gone at the end if it did not."""
    scratch = folder / ".masks.partial"
    try:
        if world.is_main:
            shutil.rmtree(scratch, ignore_errors=True)
            try:
                scratch.mkdir(parents=True)
            except OSError as error:
                raise BratsError(f"{folder}: cannot be made ({error.strerror}).") from error
        world.broadcast(None)  # nobody writes before it is there
        yield scratch
    finally:
        if world.is_main:
            shutil.rmtree(scratch, ignore_errors=True)


def publish_evaluation(evaluation: Evaluation, folder: Path, masks: Path | None = None) -> None:
    """Writes cases.csv and summary.json, and puts the folder `masks` in place, replacing an earlier
    evaluation's; masks of an earlier one do not outlive its scores."""
    final, old = folder / "masks", folder / ".masks.old"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            os.replace(final, old)
        if masks is not None:
            os.replace(masks, final)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise BratsError(f"{folder}: cannot be written ({error.strerror}).") from error
    write_atomically(folder / "cases.csv", cases_csv(evaluation.cases).encode())
    write_atomically(folder / "summary.json", to_json(evaluation.summary).encode())


def _cases_of(job: EvaluationJob, caches: Sequence[Cache]) -> list[CaseOfCache]:
    cases = [
        (cache, int(index))
        for cache in caches
        for index in np.flatnonzero(case_splits(cache, job.fold) == job.split)
    ]
    names = ", ".join(str(cache.path) for cache in caches)
    if not cases:
        raise BratsError(f"{names}: no case in split {job.split}. Look with brats info.")
    unmasked = [_id_of(case) for case in cases if not case[0].cases["has_mask"][case[1]]]
    if unmasked:
        raise BratsError(
            f"--split {job.split}: {len(unmasked)} of {len(cases)} cases have no mask to be scored "
            f"against ({', '.join(unmasked[:3])}). Segment them with brats predict."
        )
    return sorted(cases, key=_id_of)


def _id_of(case: CaseOfCache) -> str:
    cache, index = case
    name: str = cache.cases["id"][index].decode()
    return name


def _ask_model(
    case: CaseOfCache,
    rules: Rules,
    slice_threshold: float,
    ensemble: Ensemble,
    tta: bool,
    masks_to: Path | None,
) -> ScoringTask:
    """Runs the model on the cached rows of a case."""
    cache, index = case
    record = cache.cases[index]
    first, count = int(record["first_row"]), int(record["rows"])
    _, height, width = grid_of(cache, index).canonical_shape
    probabilities = ensemble.probabilities(np.asarray(cache.images[first : first + count]), tta)
    judged = rows_by_rule(cache, index, rules.slice_rows) - first
    return ScoringTask(
        cache_path=cache.path,
        case=index,
        rules=rules,
        predicted=Predicted(
            native=to_native(probabilities, height, width, cache.preparation.fit),
            on_cache=(probabilities >= slice_threshold).cpu().numpy()[judged],
        ),
        save_to=masks_to and masks_to / f"{_id_of(case)}.nii.gz",
    )


def _find_masks(folder: Path, names: Sequence[str]) -> list[Path]:
    """The file of each case. Raises `DataFaults` with every case that has none, or two."""
    files: list[Path] = []
    faults: list[Fault] = []
    for name in names:
        candidates = [folder / f"{name}{suffix}" for suffix in (".nii.gz", ".nii")]
        present = [path for path in candidates if path.is_file()]
        if len(present) == 1:
            files += present
            continue
        faults.append(
            Fault(
                case=name,
                path=candidates[0],
                found="both this and a .nii" if present else "no such mask",
                expected="one mask a case, CASE.nii.gz or CASE.nii",
            )
        )
    if faults:
        raise DataFaults(faults)
    return files


def _score_all(
    tasks: Iterator[ScoringTask], num_tasks: int, world: World, progress: Progress, spare: int
) -> tuple[list[CaseScores], list[Fault]]:
    """Scores tasks in processes beside this one, which asks the model for the next task meanwhile.

    spare  cores to be left to this process

    A fault of one case does not hide those of the others. What is in memory is bounded: tasks are
    made no faster than they are scored.
    """
    processes = min(max(1, usable_cores() // world.size - spare), num_tasks, MAX_PROCESSES)
    scored: list[CaseScores] = []
    faults: list[Fault] = []

    def take(result: Callable[[], CaseScores]) -> None:
        try:
            scored.append(result())
        except DataFaults as error:
            faults.extend(error.faults)
        except BrokenProcessPool as error:
            raise BratsError(
                "A process that scores cases died. The system may have run out of memory."
            ) from error
        progress(len(scored) + len(faults), num_tasks)

    if num_tasks < MIN_CASES_FOR_PROCESSES:
        for task in tasks:
            take(lambda task=task: score_case(task))  # type: ignore[misc]
    else:
        with _scorers(processes) as pool:
            pending: deque[Future[CaseScores]] = deque()
            for task in tasks:
                with interrupts_held():  # it may start a process
                    pending.append(pool.submit(score_case, task))
                while len(pending) > processes + 1:
                    take(pending.popleft().result)
            while pending:
                take(pending.popleft().result)
    return scored, faults


@contextmanager
def _scorers(num: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")  # a fork copies locks that threads hold
    pool = ProcessPoolExecutor(
        num, mp_context=context, initializer=die_with, initargs=(os.getpid(), signal.SIGKILL)
    )
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _gather(
    job: EvaluationJob,
    rules: Rules,
    caches: Sequence[Cache],
    scored: tuple[list[CaseScores], list[Fault]],
    world: World,
    facts: Mapping[str, Any],
) -> Evaluation:
    parts = world.all_gather(scored)
    if faults := [fault for _, part in parts for fault in part]:
        failure = DataFaults(faults)
        failure.is_shared = True
        raise failure
    everyone = [case for part, _ in parts for case in part]
    everyone.sort(key=lambda scores: scores.case)
    summary = summarise(everyone, rules, split=job.split, facts=facts)
    summary["caches"] = [
        {"path": str(cache.path), "fingerprint": cache.fingerprint} for cache in caches
    ]
    return Evaluation(cases=tuple(everyone), summary=summary)
