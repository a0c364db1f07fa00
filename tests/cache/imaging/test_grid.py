"""Two files lie on one grid where their voxels lie at one place, however their axes are stored."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_cache.imaging.grid import Grid, largest_displacement
from brats_cache.imaging.orientation import Orientation
from tests.cache.scans import LPS

SHAPE = (5, 6, 7)
CODES = [
    "".join(letters)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for letters in itertools.product(*axes)
]


@pytest.mark.parametrize("codes", CODES)
def test_every_order_of_axes_has_one_canonical_grid(codes: str) -> None:
    affine = LPS @ np.diag([1.0, 2.0, 3.0, 1.0])
    here = nib.io_orientation(affine)
    there = nib.orientations.axcodes2ornt(codes)
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine)
    stored = image.as_reoriented(nib.orientations.ornt_transform(here, there))
    grid = Grid(shape=SHAPE, affine=affine)
    other = Grid(shape=stored.shape, affine=stored.affine)
    assert Orientation.of(stored.affine).codes == codes
    assert other.canonical_shape == grid.canonical_shape == (7, 6, 5)
    assert other.spacing_mm == grid.spacing_mm == (3.0, 2.0, 1.0)
    assert np.allclose(other.canonical_affine, grid.canonical_affine)
    corner = grid.canonical_affine @ [0, 0, 0, 1]
    assert corner[:3].tolist() == [0, 239, 0]  # the first voxel: inferior, anterior, right


@given(st.tuples(*[st.floats(-50, 50)] * 3))
def test_a_shift_displaces_every_voxel_by_its_length(shift: tuple[float, float, float]) -> None:
    moved = LPS.copy()
    moved[:3, 3] += shift
    assert largest_displacement(SHAPE, LPS, moved) == pytest.approx(np.linalg.norm(shift))


def test_other_spacing_displaces_the_far_corner_most() -> None:
    stretched = LPS @ np.diag([1.1, 1.0, 1.0, 1.0])
    assert largest_displacement(SHAPE, LPS, stretched) == pytest.approx(0.1 * 4)
    assert largest_displacement(SHAPE, LPS, LPS) == 0
