"""Masks as files: on the scan's grid, and those made elsewhere in any orientation."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff

from brats_cache.common.errors import DataFaults
from brats_cache.imaging.grid import Grid
from brats_cache.imaging.labels import SCHEMES, source_table
from brats_cache.imaging.orientation import Orientation
from brats_train.inference.mask_files import encode_mask, read_mask

ORNTS = [
    np.array(list(zip(axes, signs, strict=True)), float)
    for axes in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def grid(shape: tuple[int, int, int] = (5, 6, 7)) -> Grid:
    affine = np.diag([-1.0, -1.5, 3.0, 1.0])
    affine[:3, 3] = 40, 50, -20
    return Grid(shape=shape, affine=affine)


def labels(seed: int, values: tuple[int, ...] = (0, 1, 2, 3)) -> np.ndarray:
    z, y, x = grid().canonical_shape
    return np.random.default_rng(seed).choice(values, size=(z, y, x)).astype(np.uint8)


@settings(max_examples=48)
@given(ornt=st.sampled_from(ORNTS), seed=st.integers(0, 2**31))
def test_a_mask_stored_in_any_orientation_is_the_same_mask(
    tmp_path_factory: pytest.TempPathFactory, ornt: np.ndarray, seed: int
) -> None:
    path = tmp_path_factory.mktemp("mask") / "case.nii"
    truth, scheme = labels(seed), SCHEMES["brats2017"]
    stored = np.asarray(Orientation.of(grid().affine).to_source(source_table(scheme)[truth]))
    turned = apply_orientation(stored, ornt)
    affine = grid().affine @ inv_ornt_aff(ornt, stored.shape)
    nib.save(nib.Nifti1Image(turned.astype(np.float32), affine), path)
    assert np.array_equal(read_mask(path, "case", grid(), scheme), truth)


def test_a_saved_mask_lies_on_the_scan(tmp_path: Path) -> None:
    path = tmp_path / "case.nii.gz"
    path.write_bytes(encode_mask(labels(3), grid()))
    image = nib.load(path)
    assert image.shape == grid().shape
    assert np.array_equal(image.affine, grid().affine)
    assert np.allclose(image.header.get_qform(), grid().affine, atol=1e-4)
    assert np.array_equal(read_mask(path, "case", grid(), SCHEMES["brats2023"]), labels(3))


def moved(millimetres: float) -> Grid:
    affine = grid().affine.copy()
    affine[0, 3] += millimetres
    return Grid(shape=grid().shape, affine=affine)


@pytest.mark.parametrize(
    ("volume", "on", "words"),
    [
        (np.zeros((7, 6, 4), np.uint8), grid((4, 6, 7)), "4 x 6 x 7 voxels"),
        (labels(0), moved(1.0), "1 mm away"),
        (labels(0, (0, 5)), grid(), "values 5"),
    ],
)
def test_a_mask_of_another_scan_is_refused(
    tmp_path: Path, volume: np.ndarray, on: Grid, words: str
) -> None:
    path = tmp_path / "case.nii.gz"
    path.write_bytes(encode_mask(volume, on))
    with pytest.raises(DataFaults, match=words) as refused:
        read_mask(path, "the case", grid(), SCHEMES["brats2023"])
    assert str(path) in str(refused.value)
    assert "the case" in str(refused.value)


def test_rounding_of_an_affine_is_no_other_grid(tmp_path: Path) -> None:
    path = tmp_path / "case.nii.gz"
    path.write_bytes(encode_mask(labels(0), moved(0.001)))
    read_mask(path, "case", grid(), SCHEMES["brats2023"])
