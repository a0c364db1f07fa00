"""Tiny cases made at test time, and the command line run on them within the test's own process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats_cache.build.workers import InProcess
from brats_cache.format.reader import Cache
from brats_train.cli.main import main

SHAPE = (14, 12, 6)  # X, Y, Z
LPS = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])  # as BraTS has it
OLD = ("t1", "t1ce", "t2", "flair")
NEW = ("t1n", "t1c", "t2w", "t2f")
SMALL = ("--size", 16, "--workers", 1)
MSD_JSON = {
    "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {
        "0": "background",
        "1": "edema",
        "2": "non-enhancing tumor",
        "3": "enhancing tumour",
    },
    "numTraining": 2,
}


def image(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A brain of positive int16 values with a border of zeros on each side."""
    values = np.random.default_rng(seed).integers(50, 900, shape).astype(np.int16)
    inside = np.zeros(shape, bool)
    inside[2:-2, 2:-2, 1:-1] = True
    return np.where(inside, values, 0).astype(np.int16)


def mask(values: Sequence[int] = (1, 2, 4), shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A mask that holds each of `values`, in two slices."""
    labels = np.zeros(shape, np.uint8)
    for place, value in enumerate(values):
        labels[3 + place, 4:7, 2:4] = value
    return labels


def write(path: Path, data: np.ndarray, affine: np.ndarray = LPS, **header: Any) -> Path:
    """A NIfTI-1 file with `data` as it is and the given header fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = nib.Nifti1Image(data, affine, dtype=data.dtype)
    nib.save(made, path)
    if header:
        edit(path, **header)
    return path


def edit(path: Path, **fields: Any) -> None:
    """Overwrites header fields of a plain .nii file, unchecked."""
    raw = bytearray(path.read_bytes())
    record = np.frombuffer(raw, nib.Nifti1Header.template_dtype, count=1)
    for name, value in fields.items():
        record[name] = value
    path.write_bytes(raw)


def add_case(
    data: Path,
    case: str,
    *,
    roles: Sequence[str] = OLD,
    labels: np.ndarray | None = None,
    mask_role: str = "seg",
    suffix: str = ".nii",
    shape: tuple[int, int, int] = SHAPE,
    affine: np.ndarray = LPS,
    seed: int = 0,
) -> Path:
    """One case folder with an image a role and, where `labels` are given, a mask; its path."""
    folder = data / case
    separator = "-" if roles == NEW else "_"
    for number, role in enumerate(roles):
        path = folder / f"{case}{separator}{role}{suffix}"
        write(path, image(seed * 10 + number, shape), affine)
    if labels is not None:
        write(folder / f"{case}{separator}{mask_role}{suffix}", labels, affine)
    return folder


class InThisProcess(InProcess):
    """Stands in for `Workers` where a test is about something else: starting processes costs more
    than everything else together."""

    def __init__(self, num_workers: int) -> None:
        assert num_workers >= 1

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Outcome:
    code: int
    out: str
    err: str


class Commands:
    """Runs `brats WORDS` in this process; see the fixture `brats` in conftest."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, code: int = 0) -> Outcome:
        """Runs it and checks the exit code, and that a failure is one message, no traceback."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        said = self._capsys.readouterr()
        outcome = Outcome(code=int(end.value.code or 0), out=said.out, err=said.err)
        assert outcome.code == code, outcome
        assert "Traceback" not in outcome.err
        assert outcome.err.count("Error: ") == (1 if code else 0), outcome.err
        return outcome


def case_of(cache: Cache, case_id: str) -> Any:
    (index,) = np.flatnonzero(cache.cases["id"] == case_id.encode())
    return cache.cases[index]


def rows_of(cache: Cache, case_id: str) -> slice:
    record = case_of(cache, case_id)
    return slice(record["first_row"], record["first_row"] + record["rows"])


def splits_of(cache: Cache) -> dict[str, str]:
    return {
        patient.decode(): split.decode()
        for patient, split in zip(cache.cases["patient"], cache.cases["split"], strict=True)
    }


def add_msd(root: Path, labels: dict[str, str] | None = None) -> None:
    for number in (1, 2):
        data = np.stack([image(seed) for seed in range(4)], axis=-1)
        write(root / "imagesTr" / f"BRATS_{number:03d}.nii.gz", data)
        write(root / "labelsTr" / f"BRATS_{number:03d}.nii.gz", mask((1, 2, 3)))
    write(root / "imagesTs" / "BRATS_485.nii.gz", data)
    description = {**MSD_JSON, **({"labels": labels} if labels else {})}
    (root / "dataset.json").write_text(json.dumps(description))
