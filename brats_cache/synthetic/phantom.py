"""Synthetic cases in the shape, names and layout of BraTS 2020: data to try everything with.

`make_case` computes one case, `write_phantom` writes a data set of them. The heads come from
`anatomy`; here four sequences of a scanner see them, each with its own contrast, gain, shading and
noise, and the images become files. A score on a phantom says that the machinery works, never how
good a model is.

Hard on purpose: oedema fades outwards, cortex and ventricle caps are bright on FLAIR too, shading
and contrasts differ from case to case. No threshold finds the tumours; the four contrasts together
show each of them.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import cv2
import nibabel as nib
import numpy as np
from isal import igzip

from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_cache.common.process import die_with, interrupts_held
from brats_cache.synthetic.anatomy import Anatomy, make_anatomy

__all__ = ["PhantomCase", "make_case", "write_phantom"]

Grade = Literal["HGG", "LGG"]
Shape = tuple[int, int, int]
# Brightness by modality, white matter being 1, measured on BraTS cases.
_MODALITIES = ("t1", "t1ce", "t2", "flair")
_HEALTHY = {
    "csf": (0.35, 0.35, 3.20, 0.35),
    "grey": (0.80, 0.82, 1.40, 1.35),
    "lesion": (0.92, 0.92, 1.50, 1.80),
    "vessel": (0.70, 2.40, 1.20, 0.90),
}
# What is ill differs from patient to patient: a case draws from these ranges.
_ILL = {
    "oedema": ((0.72, 0.88), (0.72, 0.88), (1.8, 2.3), (1.3, 1.85)),
    "necrosis": ((0.50, 0.72), (0.50, 0.72), (2.2, 3.0), (0.7, 1.7)),
    "rim": ((0.72, 0.90), (1.70, 2.60), (1.7, 2.2), (1.2, 1.7)),
    "solid": ((0.60, 0.75), (0.65, 0.80), (2.0, 2.6), (1.3, 1.8)),
}
_SMALLEST, _LARGEST = (16, 16, 8), (512, 512, 512)
_GRADE_BLOCK = 4  # one low grade in four (BraTS 2020: one in five), so that few cases hold both
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


@dataclass(frozen=True, kw_only=True, eq=False)
class PhantomCase:
    """One synthetic case; arrays are (X, Y, Z) as in the files.

    images         by modality, int16: 0 outside the brain and nowhere inside it
    mask           uint8, BraTS labels 0, 1 (NCR/NET), 2 (ED), 4 (ET)
    tissue         uint8, what most of a voxel would be without the tumour: 0 outside the brain,
                   1 fluid, 2 grey matter, 3 white matter
    grade          "HGG" or "LGG"
    age            years
    survival_days  after the diagnosis
    resection      "GTR", "STR" or "NA"
    """

    images: dict[str, np.ndarray]
    mask: np.ndarray
    tissue: np.ndarray
    grade: Grade
    age: float
    survival_days: int
    resection: str


def make_case(seed: int, index: int, shape: Shape, grade: Grade | None = None) -> PhantomCase:
    """Case `index` (from 0) of the phantom `seed`: a pure function of its arguments.

    shape  (X, Y, Z) voxels; 240 x 240 x 155 are 1 mm each, fewer show the same head more coarsely
    grade  None takes the case's own: one case in four is of low grade

    Raises `BratsError` for a negative seed or a shape outside 16 x 16 x 8 to 512 x 512 x 512.
    """
    _check(seed=seed, shape=shape)
    grade = grade or _grade_of(seed, index)
    geometry, scanner, person = (
        np.random.Generator(np.random.SFC64(part))
        for part in np.random.SeedSequence((seed, index)).spawn(3)
    )
    anatomy = make_anatomy(geometry, shape[::-1], high_grade=grade == "HGG")
    images = {
        modality: _to_volume(_scan(part, anatomy, channel), anatomy, shape)
        for channel, (modality, part) in enumerate(zip(_MODALITIES, scanner.spawn(4), strict=True))
    }
    tissue = 1 + np.argmax([anatomy.csf, anatomy.grey, anatomy.white], axis=0).astype(np.uint8)
    return PhantomCase(
        images=images,
        mask=_to_volume(anatomy.labels, anatomy, shape),
        tissue=_to_volume(tissue, anatomy, shape),
        grade=grade,
        age=round(float(np.clip(person.normal(60 if grade == "HGG" else 43, 12), 19, 88)), 3),
        survival_days=int(np.clip(person.lognormal(5.9, 0.8), 5, 1800)),
        resection=str(person.choice(["GTR", "STR", "NA"], p=[0.5, 0.1, 0.4])),
    )


def _grade_of(seed: int, index: int) -> Grade:
    """One case of each `_GRADE_BLOCK` in a row is of low grade, at a place drawn for that block."""
    block, place = divmod(index, _GRADE_BLOCK)
    low = np.random.default_rng((seed, block, _GRADE_BLOCK)).integers(_GRADE_BLOCK)
    return "LGG" if place == low else "HGG"


def _scan(rng: np.random.Generator, anatomy: Anatomy, channel: int) -> np.ndarray:
    """The (n,) int16 magnitudes that modality number `channel` measures in the brain."""
    healthy = {name: levels[channel] * rng.normal(1, 0.06) for name, levels in _HEALTHY.items()}
    ill = {name: rng.uniform(*spans[channel]) for name, spans in _ILL.items()}
    image = anatomy.white + anatomy.csf * np.float32(healthy["csf"])
    image += anatomy.grey * np.float32(healthy["grey"])
    for share, level in (
        (anatomy.lesion, healthy["lesion"]),
        (anatomy.vessel, healthy["vessel"]),
        (anatomy.oedema * (0.45 + 0.55 * anatomy.graded), ill["oedema"]),
        (anatomy.necrosis, ill["necrosis"]),
        (anatomy.rim, ill["rim"]),
        (anatomy.solid, ill["solid"]),
    ):
        image += share * (np.float32(level) - image)
    diseased = anatomy.oedema + anatomy.necrosis + anatomy.rim + anatomy.solid
    image *= 1 + np.float32(0.07) * anatomy.mottle * diseased
    image *= np.exp(np.float32(rng.uniform(0.06, 0.16)) * anatomy.bias[channel])

    # The magnitude of a complex signal with Gaussian noise in both parts has Rician noise.
    noise = rng.standard_normal((2, len(image)), dtype=np.float32)
    noise *= np.float32(rng.uniform(0.02, 0.06))
    magnitude = np.hypot(image + noise[0], noise[1])
    gain = np.exp(rng.uniform(np.log(120), np.log(1800)))  # scanners share no scale
    return np.clip(np.rint(magnitude * np.float32(gain)), 1, 32767).astype(np.int16)


def _to_volume(values: np.ndarray, anatomy: Anatomy, shape: Shape) -> np.ndarray:
    """The values of the brain's voxels as a volume (X, Y, Z) that is 0 elsewhere."""
    volume = np.zeros(shape[::-1], values.dtype)
    volume.reshape(-1)[anatomy.voxels] = values
    return volume.T


@dataclass(frozen=True, kw_only=True)
class _Order:
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
    """Writes a data set of synthetic cases under `out_dir`, laid out and named as BraTS 2020 is on
    Kaggle: training cases with masks, test cases without, and the tables beside them.

    num_cases, num_test_cases  cases with and without a mask
    gz        `.nii.gz` instead of `.nii`; equal arguments give equal bytes either way
    shape     (X, Y, Z); the header says 1 mm whatever the shape
    workers   processes, each of about 0.5 GiB at full size; None is one a core
    progress  called here, with cases done and cases in all, after each case

    Raises `BratsError` where `out_dir` holds anything, an argument makes no data set, the disk is
    too small or fails, or a process dies.
    """
    _check(seed=seed, shape=shape, num_cases=num_cases, num_test_cases=num_test_cases)
    if workers is not None and workers < 1:
        raise BratsError(f"{workers} workers cannot write anything; ask for at least 1.")
    num_volumes = len(_MODALITIES) * (num_cases + num_test_cases)
    plain_bytes = int(np.prod(shape)) * (2 * num_volumes + num_cases)
    _make_room(out_dir, plain_bytes // 8 if gz else plain_bytes)  # gzip leaves about an eighth
    training = [
        _Order(
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
        _Order(
            seed=seed,
            index=_FIRST_TEST_INDEX + number - 1,
            shape=shape,
            folder=out_dir / _TEST_DIR / f"BraTS20_Validation_{number:03d}",
            has_mask=False,
            gz=gz,
        )
        for number in range(1, num_test_cases + 1)
    ]
    orders = training + test
    for order in orders:
        order.folder.mkdir(parents=True)
    num_workers = min(workers or len(os.sched_getaffinity(0)), len(orders))
    records = _carry_out(orders, num_workers, progress or (lambda done, total: None))
    if training:
        _write_training_tables(out_dir / _TRAINING_DIR, records[:num_cases])
    if test:
        ids = [[*["NA"] * 4, record.name] for record in records[num_cases:]]
        _write_table(out_dir / _TEST_DIR / "name_mapping_validation_data.csv", _ID_COLUMNS, ids)


def _check(*, seed: int, shape: Shape, num_cases: int = 1, num_test_cases: int = 0) -> None:
    if seed < 0:
        raise BratsError(f"seed {seed} is negative; a phantom's seed is 0 or more.")
    limits = zip(_SMALLEST, shape, _LARGEST, strict=True)
    if not all(low <= size <= high for low, size, high in limits):
        found, low, high = (" x ".join(map(str, sizes)) for sizes in (shape, _SMALLEST, _LARGEST))
        raise BratsError(f"a phantom cannot be {found} voxels; it is {low} to {high}.")
    if min(num_cases, num_test_cases) < 0 or num_cases + num_test_cases < 1:
        raise BratsError(
            f"{num_cases} cases and {num_test_cases} test cases make no data set; "
            "ask for at least one of either."
        )


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


def _carry_out(
    orders: Sequence[_Order], workers: int, progress: Callable[[int, int], None]
) -> list[_Record]:
    """The records of `orders`, in their order, once all their files are written."""
    records: dict[int, _Record] = {}
    if workers == 1:
        for place, order in enumerate(orders):
            records[place] = _write_case(order)
            progress(len(records), len(orders))
        return list(records.values())
    # Spawned, because forking a process that runs threads (a progress bar, OpenCV) can deadlock.
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_start_worker, initargs=(os.getpid(),)
    )
    try:
        with interrupts_held():
            futures = {pool.submit(_write_case, order): place for place, order in enumerate(orders)}
        for future in as_completed(futures):
            records[futures[future]] = future.result()
            progress(len(records), len(orders))
    except BrokenProcessPool as error:
        raise BratsError(
            f"A process that writes cases died after {len(records)} of {len(orders)}; memory may "
            f"have run out. Remove the folder and ask for fewer than {workers} workers. (A script "
            'must call this under `if __name__ == "__main__":`.)'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return [records[place] for place in range(len(orders))]


def _start_worker(parent: int) -> None:
    """Ends when the parent is gone, and keeps to one core."""
    die_with(parent, signal.SIGKILL)
    cv2.setNumThreads(1)


def _write_case(order: _Order) -> _Record:
    case = make_case(order.seed, order.index, order.shape)
    volumes = case.images | ({"seg": case.mask} if order.has_mask else {})
    for kind, volume in volumes.items():
        path = order.folder / f"{order.folder.name}_{kind}.nii{'.gz' if order.gz else ''}"
        content = _encode(volume)
        write_atomically(path, igzip.compress(content, 1, mtime=0) if order.gz else content)
    return _Record(
        name=order.folder.name,
        grade=case.grade,
        age=case.age,
        survival_days=case.survival_days,
        resection=case.resection,
    )


def _encode(volume: np.ndarray) -> bytes:
    """A volume (X, Y, Z) as a `.nii`, with the geometry that every BraTS file up to 2021 has: 1 mm,
    x to the left and y to the back (LPS), the last row at the origin."""
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
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_atomically(path, text.getvalue().encode())
