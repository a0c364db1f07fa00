"""Data sets of synthetic cases, in the names and layout of BraTS 2020."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
from isal import igzip

from brats_cache.common.csv_names import csv_text
from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_cache.common.process import die_with, interrupts_held, usable_cores
from brats_cache.discovery.namings import MODALITIES
from brats_cache.synthetic.phantom import Grade, Shape, check_phantom, make_case

__all__ = ["write_phantom"]

_FIRST_TEST_INDEX = 1_000_000  # test cases stay the same however many training cases there are
_TRAINING_DIR = "BraTS2020_TrainingData/MICCAI_BraTS2020_TrainingData"
_TEST_DIR = "BraTS2020_ValidationData/MICCAI_BraTS2020_ValidationData"
_ID_COLUMNS = (
    "BraTS_2017_subject_ID",
    "BraTS_2018_subject_ID",
    "TCGA_TCIA_subject_ID",
    "BraTS_2019_subject_ID",
    "BraTS_2020_subject_ID",
)


@dataclass(frozen=True, kw_only=True)
class _CaseTask:
    """One case to be written."""

    seed: int
    index: int
    shape: Shape
    folder: Path
    has_mask: bool
    gz: bool


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What the tables say of a case."""

    name: str
    grade: Grade
    age: float
    survival_days: int
    resection: str


def write_phantom(
    out_dir: Path,
    *,
    num_cases: int,
    num_test_cases: int = 0,
    seed: int = 0,
    gz: bool = False,
    shape: Shape = (240, 240, 155),
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes a data set of synthetic cases, laid out and named as BraTS 2020 is on Kaggle: training
    cases with masks, test cases without, and the tables beside them.

    Equal arguments give equal bytes, whatever the number of processes.

    Args:
        out_dir: A folder that is empty or does not exist.
        num_cases: Cases with a mask.
        num_test_cases: Cases without.
        seed: 0 or more.
        gz: Write `.nii.gz` instead of `.nii`.
        shape: (X, Y, Z) voxels; the header says 1 mm whatever the shape.
        workers: Processes, each of about 0.5 GiB at full size; None is one a core.
        progress: Called with cases done and cases in all, after each case.

    Raises:
        BratsError: `out_dir` holds anything, an argument makes no data set, the disk is too small
            or fails, or a process dies.
    """
    check_phantom(seed=seed, shape=shape, num_cases=num_cases, num_test_cases=num_test_cases)
    if workers is not None and workers < 1:
        raise BratsError(f"{workers} workers cannot write anything; ask for at least 1.")
    num_volumes = len(MODALITIES) * (num_cases + num_test_cases)
    plain_bytes = int(np.prod(shape)) * (2 * num_volumes + num_cases)
    _make_room(out_dir, plain_bytes // 8 if gz else plain_bytes)  # gzip leaves about an eighth
    training = [
        _CaseTask(
            seed=seed,
            index=number - 1,
            shape=shape,
            folder=out_dir / _TRAINING_DIR / f"BraTS20_Training_{number:03d}",
            has_mask=True,
            gz=gz,
        )
        for number in range(1, num_cases + 1)
    ]
    test = [
        _CaseTask(
            seed=seed,
            index=_FIRST_TEST_INDEX + number - 1,
            shape=shape,
            folder=out_dir / _TEST_DIR / f"BraTS20_Validation_{number:03d}",
            has_mask=False,
            gz=gz,
        )
        for number in range(1, num_test_cases + 1)
    ]
    tasks = training + test
    _make_folders(out_dir, [task.folder for task in tasks])
    num_workers = min(workers or usable_cores(), len(tasks))
    records = _write_cases(tasks, num_workers, progress or (lambda done, total: None))
    if training:
        _write_training_tables(out_dir / _TRAINING_DIR, records[:num_cases])
    if test:
        ids = [[*["NA"] * 4, record.name] for record in records[num_cases:]]
        _write_table(out_dir / _TEST_DIR / "name_mapping_validation_data.csv", _ID_COLUMNS, ids)


def _make_room(out_dir: Path, num_bytes: int) -> None:
    """Makes the folder, after refusing what would be overwritten or could not fit."""
    try:
        if out_dir.is_dir() and any(out_dir.iterdir()):
            raise BratsError(
                f"{out_dir}: is not empty, and a phantom overwrites nothing. "
                "Remove it or name another folder."
            )
        out_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out_dir).free
    except OSError as error:
        raise BratsError(f"{out_dir}: cannot be made ({error.strerror or error}).") from error
    if num_bytes > free:
        raise BratsError(
            f"{out_dir}: the phantom needs {num_bytes / 1e9:.1f} GB and the disk has "
            f"{free / 1e9:.1f} GB left. Ask for fewer cases, or for .nii.gz."
        )


def _make_folders(out_dir: Path, folders: Sequence[Path]) -> None:
    """Makes the folder of each case; of two processes at once one is refused at the first."""
    try:
        for folder in folders:
            folder.mkdir(parents=True)
    except FileExistsError:
        raise BratsError(
            f"{out_dir}: another process makes a phantom there. Wait for it, or name another "
            "folder."
        ) from None
    except OSError as error:
        raise BratsError(f"{out_dir}: cannot be written ({error.strerror}).") from error


def _write_cases(
    tasks: Sequence[_CaseTask], workers: int, progress: Callable[[int, int], None]
) -> list[_Record]:
    """Writes all cases; what the tables say of each, in the order of `tasks`."""
    records: dict[int, _Record] = {}
    if workers == 1:
        for index, task in enumerate(tasks):
            records[index] = _write_case(task)
            progress(len(records), len(tasks))
        return list(records.values())
    # Spawned, because forking a process that runs threads (a progress bar, OpenCV) can deadlock.
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_start_worker, initargs=(os.getpid(),)
    )
    try:
        with interrupts_held():
            futures = {pool.submit(_write_case, task): index for index, task in enumerate(tasks)}
        for future in as_completed(futures):
            records[futures[future]] = future.result()
            progress(len(records), len(tasks))
    except BrokenProcessPool as error:
        raise BratsError(
            f"A process that writes cases died after {len(records)} of {len(tasks)}; memory may "
            f"have run out. Remove the folder and ask for fewer than {workers} workers. (A script "
            'must call this under `if __name__ == "__main__":`.)'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return [records[index] for index in range(len(tasks))]


def _start_worker(parent: int) -> None:
    """Ends when the parent is gone, and keeps to one core."""
    die_with(parent, signal.SIGKILL)
    cv2.setNumThreads(1)


def _write_case(task: _CaseTask) -> _Record:
    """Writes the files of one case; runs in a worker process."""
    case = make_case(task.seed, task.index, task.shape)
    volumes = case.images | ({"seg": case.mask} if task.has_mask else {})
    for kind, volume in volumes.items():
        path = task.folder / f"{task.folder.name}_{kind}.nii{'.gz' if task.gz else ''}"
        content = _encode(volume)
        write_atomically(path, igzip.compress(content, 1, mtime=0) if task.gz else content)
    return _Record(
        name=task.folder.name,
        grade=case.grade,
        age=case.age,
        survival_days=case.survival_days,
        resection=case.resection,
    )


def _encode(volume: np.ndarray) -> bytes:
    """The bytes of a volume (X, Y, Z) as a `.nii` with the geometry of every BraTS file up to 2021:
    1 mm, x to the left and y to the back (LPS), the last row at the origin."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = volume.shape[1] - 1
    image = nib.Nifti1Image(volume, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


def _write_training_tables(folder: Path, records: Sequence[_Record]) -> None:
    """The grades of all cases, and the survival of those of high grade, as in BraTS."""
    names = [[record.grade, *["NA"] * 4, record.name] for record in records]
    _write_table(folder / "name_mapping.csv", ("Grade", *_ID_COLUMNS), names)
    survival = [
        [record.name, record.age, record.survival_days, record.resection]
        for record in records
        if record.grade == "HGG"
    ]
    columns = ("Brats20ID", "Age", "Survival_days", "Extent_of_Resection")
    _write_table(folder / "survival_info.csv", columns, survival)


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    write_atomically(path, csv_text([columns, *rows]).encode())
