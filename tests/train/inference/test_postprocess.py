"""Masks: regions and labels there and back, and files made elsewhere in any orientation."""

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
from brats_cache.imaging.labels import SCHEMES, canonical_table, region_table, source_table
from brats_cache.imaging.orientation import Orientation
from brats_train.inference.postprocess import (
    Grid,
    encode_mask,
    label_volume,
    read_mask,
    regions_of,
    source_labels,
)

REGIONS = ("wt", "tc", "et")
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


def test_slices_without_a_row_are_background_and_specks_go() -> None:
    probabilities = np.zeros((2, 1, 6, 6), np.float32)
    probabilities[0, 0, :3, :3], probabilities[1, 0, 5, 5] = 0.5, 0.9
    masks = regions_of(
        probabilities, ("wt",), np.array([1, 4]), 6, threshold=0.5, min_component_voxels=2
    )
    assert masks.shape == (1, 6, 6, 6)
    assert np.flatnonzero(masks.any(axis=(0, 2, 3))).tolist() == [1]
    assert masks[0, 1, :3, :3].all()


@given(seed=st.integers(0, 2**31))
def test_what_is_scored_is_what_is_written(seed: int) -> None:
    probabilities = np.random.default_rng(seed).random((4, 3, 5, 6), np.float32)
    masks = regions_of(
        probabilities, REGIONS, np.arange(4), 4, threshold=0.5, min_component_voxels=3
    )
    written = label_volume(masks, REGIONS)
    for channel, region in enumerate(REGIONS):
        assert np.array_equal(region_table(region)[written], masks[channel])


@given(seed=st.integers(0, 2**31), scheme=st.sampled_from(["brats2013", "brats2017", "brats2023"]))
def test_nested_regions_come_back_from_their_labels(seed: int, scheme: str) -> None:
    truth = labels(seed)
    masks = np.stack([region_table(region)[truth] for region in REGIONS])
    written = source_labels(masks, REGIONS, SCHEMES[scheme])
    assert set(np.unique(written)) <= SCHEMES[scheme].values
    assert np.array_equal(canonical_table(SCHEMES[scheme])[written], truth)
    assert np.array_equal(label_volume(masks, REGIONS), truth)


def test_the_whole_tumour_alone_is_written_as_one() -> None:
    masks = labels(0)[None] > 0
    for scheme in SCHEMES.values():
        assert np.array_equal(source_labels(masks, ("wt",), scheme), masks[0])


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
