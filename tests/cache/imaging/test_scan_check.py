"""Scans that no model of BraTS can use are warned of by kind; those of BraTS are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brats_cache.build.survey import load_case
from brats_cache.discovery.cases import find_cases
from brats_cache.imaging.nifti_header import read_header
from brats_cache.imaging.preprocess import Preparation, brain_of
from brats_cache.imaging.scan_check import (
    FLAT,
    IDENTICAL,
    NOT_ALIGNED,
    NOT_STRIPPED,
    OTHER_SPACING,
    check_scans,
)
from brats_cache.synthetic.phantom import make_case

SHAPE = (60, 72, 64)
ONE_MM = (1.0, 1.0, 1.0)
NAMES = ("t1", "t1ce", "t2", "flair")


def ellipsoid(radii: tuple[float, float, float], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    axes = [np.arange(n) - (n - 1) / 2 for n in shape]
    grid = np.meshgrid(*axes, indexing="ij")
    return sum((x / r) ** 2 for x, r in zip(grid, radii, strict=True)) <= 1


def brains(seed: int = 0, dtype: type = np.int16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    inside = ellipsoid((24, 30, 25))
    return {name: (rng.integers(50, 900, SHAPE) * inside).astype(dtype) for name in NAMES}


def warnings_of(
    volumes: dict[str, np.ndarray], spacing: tuple[float, float, float] = ONE_MM
) -> tuple[str, ...]:
    return check_scans(volumes, brain_of(list(volumes.values())), spacing)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_four_contrasts_of_one_brain_are_fine(dtype: type) -> None:
    assert warnings_of(brains(dtype=dtype)) == ()
    assert warnings_of({name: brains()[name] for name in ("t1ce", "flair")}) == ()
    assert warnings_of({"flair": brains()["flair"]}) == ()


@pytest.mark.parametrize("spacing", [(0.8, 1.0, 1.0), (1.2, 0.9, 0.9), (1.5, 0.7, 0.7)])
def test_about_a_millimetre_is_fine(spacing: tuple[float, float, float]) -> None:
    assert warnings_of(brains(), spacing) == ()


@pytest.mark.parametrize("spacing", [(5.0, 0.9, 0.9), (1.0, 0.45, 0.45), (2.0, 2.0, 2.0)])
def test_thick_slices_and_fine_pixels_are_told(spacing: tuple[float, float, float]) -> None:
    assert OTHER_SPACING in warnings_of(brains(), spacing)


def test_a_head_is_larger_than_a_brain() -> None:
    volumes = {name: np.repeat(volume, 3, axis=0) for name, volume in brains().items()}
    assert NOT_STRIPPED not in warnings_of(volumes, (1.0, 2.4, 2.4))
    assert NOT_STRIPPED in warnings_of(volumes, (1.0, 3.3, 3.3))


@pytest.mark.parametrize("background", [3, -1])
def test_a_background_other_than_zero_is_no_stripped_brain(background: int) -> None:
    volumes = {n: np.where(v == 0, background, v).astype(np.int16) for n, v in brains().items()}
    assert warnings_of(volumes) == (NOT_STRIPPED,)


@pytest.mark.parametrize("scale", [1.0, 0.25, 3.0])
def test_a_modality_that_is_a_copy_of_another_is_told(scale: float) -> None:
    volumes = brains(dtype=np.float32)
    volumes["t2"] = volumes["flair"] * np.float32(scale)
    assert warnings_of(volumes) == (IDENTICAL,)


def test_a_mask_in_place_of_an_image_is_told() -> None:
    volumes = brains()
    volumes["t1ce"] = (volumes["t1"] != 0).astype(np.int16)
    assert warnings_of(volumes) == (FLAT,)
    volumes["t1ce"] = np.zeros(SHAPE, np.int16)
    assert warnings_of(volumes) == (FLAT,)


@pytest.mark.parametrize("shift", [(9, 0, 0), (0, 8, 0), (4, 6, 5)])
def test_a_modality_that_lies_elsewhere_is_told(shift: tuple[int, int, int]) -> None:
    volumes = brains()
    volumes["flair"] = np.roll(volumes["flair"], shift, axis=(0, 1, 2))
    assert warnings_of(volumes) == (NOT_ALIGNED,)


def test_several_kinds_at_once_keep_their_order() -> None:
    volumes = brains()
    volumes["t2"] = volumes["t1"]
    volumes["flair"] = np.roll(volumes["flair"], 12, axis=1)
    assert warnings_of(volumes, (4.0, 1.0, 1.0)) == (OTHER_SPACING, IDENTICAL, NOT_ALIGNED)


def test_a_phantom_is_fine() -> None:
    case = make_case(0, 3, (80, 80, 52))
    assert warnings_of({name: image.T for name, image in case.images.items()}) == ()


@pytest.mark.parametrize(
    ("folder", "modalities", "expected"),
    [
        ("brats2015", ("t1ce", "flair"), set()),
        ("brats2021", NAMES, set()),
        ("brats2023", NAMES, set()),
        ("lgg", ("t1", "t1ce", "flair"), {NOT_STRIPPED, OTHER_SPACING}),
    ],
)
def test_real_cases(
    real_data: Path, folder: str, modalities: tuple[str, ...], expected: set[str]
) -> None:
    findings = find_cases([real_data / folder], modalities)
    assert findings.cases
    for case in findings.cases:
        loaded = load_case(case, Preparation(modalities=modalities))
        spacing = read_header(case.images[modalities[0]].path).spacing
        volumes = dict(zip(modalities, loaded.volumes, strict=True))
        # Where one was missing, the lgg set holds another modality in its place.
        assert set(check_scans(volumes, loaded.brain, spacing)) - {IDENTICAL} == expected, case.id
        if folder != "lgg":
            assert check_scans(volumes, loaded.brain, spacing) == ()
