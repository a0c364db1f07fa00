"""What a header leaves open is named once a kind, and what is written opens where the scan does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from brats_cache.imaging.header_doubts import (
    FORMS_DIFFER,
    NO_FORM,
    OTHER_UNITS,
    SHEARED,
    UNSCALED,
    shear_of,
)
from brats_cache.imaging.nifti import read_contents, read_volume
from brats_cache.imaging.nifti_header import read_header
from brats_cache.imaging.nifti_writer import encode_volume
from tests.cache.scans import LPS, SHAPE, image

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def turned(degrees: float, axes: tuple[int, int] = (1, 2)) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[np.ix_(axes, axes)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


def sheared(amount: float) -> np.ndarray:
    shear = np.eye(4)
    shear[0, 1] = amount
    return LPS @ shear


def scan(
    path: Path,
    sform: np.ndarray | None,
    qform: np.ndarray | None,
    codes: tuple[int, int] = (1, 1),
    kind: type = nib.Nifti1Image,
    **fields: Any,
) -> Path:
    """A scan with these forms; None leaves one unset. `codes` are of sform and qform."""
    made = kind(image(1), np.eye(4))
    made.set_sform(sform, codes[0] if sform is not None else 0)
    if sform is not None:
        made.header.set_zooms(np.linalg.norm(sform[:3, :3], axis=0))
    made.set_qform(qform, codes[1] if qform is not None else 0)
    for name, value in fields.items():
        made.header[name] = value
    nib.save(made, path)
    return path


def itk_affine(path: Path) -> np.ndarray:
    """Voxel to RAS mm as SimpleITK reads it."""
    read = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(read.GetDirection(), (3, 3)) * read.GetSpacing()
    affine[:3, 3] = read.GetOrigin()
    return RAS_TO_LPS @ affine


def written_like(path: Path) -> Path:
    header = read_header(path)
    out = path.with_name("mask.nii.gz")
    marks = (read_volume(read_contents(header)) > 400).astype(np.uint8)
    out.write_bytes(encode_volume(marks, header))
    return out


@pytest.mark.parametrize(
    ("sform", "qform", "codes", "fields", "doubts"),
    [
        (LPS, LPS, (1, 1), {}, ()),
        (LPS, None, (2, 0), {}, ()),
        (None, turned(12) @ LPS, (0, 1), {}, ()),
        (turned(12) @ LPS, turned(12) @ LPS, (1, 2), {}, ()),
        (LPS, LPS, (1, 1), {"xyzt_units": 2}, ()),
        (LPS, turned(4, (0, 1)) @ LPS, (2, 1), {}, (FORMS_DIFFER,)),
        (LPS, LPS + np.eye(4, k=3) * 7, (1, 1), {}, (FORMS_DIFFER,)),
        (LPS, turned(9) @ LPS, (1, 0), {}, ()),  # a code of 0 means that the form says nothing
        (LPS, LPS @ np.diag([2, 2, 2, 1]), (1, 1), {}, (UNSCALED,)),
        (LPS, None, (1, 0), {"pixdim": [1, 0.9, 0.9, 3, 1, 1, 1, 1]}, (UNSCALED,)),
        (sheared(0.05), None, (1, 0), {}, (SHEARED,)),
        (sheared(0.05), LPS, (1, 1), {}, (SHEARED,)),
        (LPS, LPS, (1, 1), {"xyzt_units": 1}, (OTHER_UNITS,)),
        (LPS, LPS, (1, 1), {"xyzt_units": 3 | 8}, (OTHER_UNITS,)),
        (None, None, (0, 0), {}, (NO_FORM,)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_each_doubt_has_one_name(
    tmp_path: Path,
    sform: np.ndarray | None,
    qform: np.ndarray | None,
    codes: tuple[int, int],
    fields: dict[str, Any],
    doubts: tuple[str, ...],
    kind: type,
) -> None:
    path = scan(tmp_path / "a.nii", sform, qform, codes, kind, **fields)
    assert read_header(path).doubts == doubts


def test_several_doubts_at_once(tmp_path: Path) -> None:
    path = scan(tmp_path / "a.nii.gz", sheared(0.2), None, xyzt_units=3)
    assert read_header(path).doubts == (SHEARED, OTHER_UNITS)


def test_real_headers_leave_nothing_open(real_data: Path) -> None:
    paths = sorted(real_data.rglob("*.nii*"))
    assert len(paths) > 50
    for path in paths:
        assert read_header(path).doubts == (), path


def test_shear_is_the_cosine_between_axes() -> None:
    assert shear_of(turned(30) @ LPS @ np.diag([1, 2, 9, 1])) == pytest.approx(0, abs=1e-12)
    assert shear_of(sheared(1.0)) == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize(
    ("sform", "qform", "codes"),
    [
        (LPS, LPS, (1, 1)),
        (LPS, None, (1, 0)),
        (None, turned(12) @ LPS, (0, 1)),
        (turned(15) @ turned(5, (0, 1)) @ LPS, None, (4, 0)),
        (LPS, turned(10) @ LPS, (2, 1)),
        (LPS, LPS @ np.diag([2, 2, 2, 1]), (1, 1)),
        (sheared(0.1), sheared(0.1), (1, 1)),
        (None, None, (0, 0)),
    ],
)
def test_simpleitk_shows_a_mask_where_it_shows_its_scan(
    tmp_path: Path, sform: np.ndarray | None, qform: np.ndarray | None, codes: tuple[int, int]
) -> None:
    path = scan(tmp_path / "a.nii.gz", sform, qform, codes)
    out = written_like(path)
    assert np.allclose(itk_affine(out), itk_affine(path), atol=1e-4)
    assert np.array_equal(nib.load(out).affine, nib.load(path).affine)
    voxels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(out)))
    assert np.array_equal(voxels, (image(1) > 400).transpose(2, 1, 0))


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (2, 0)])
@pytest.mark.parametrize("affine", [LPS, turned(11) @ LPS @ np.diag([1, 1, 5, 1])])
def test_simpleitk_agrees_with_a_plain_or_oblique_affine(
    tmp_path: Path, affine: np.ndarray, codes: tuple[int, int]
) -> None:
    path = scan(tmp_path / "a.nii", affine, affine if codes[1] else None, codes)
    assert np.allclose(itk_affine(written_like(path)), affine, atol=1e-3)


@pytest.mark.parametrize("amount", [0.3, 0.05, 2e-3])
def test_a_mask_on_a_sheared_grid_opens_in_simpleitk_and_keeps_its_affine(
    tmp_path: Path, amount: float
) -> None:
    path = scan(tmp_path / "a.nii.gz", sheared(amount), None, (2, 0))
    with pytest.raises(RuntimeError, match="orthonormal"):
        SimpleITK.ReadImage(str(path))
    out = written_like(path)
    assert np.array_equal(nib.load(out).affine, nib.load(path).affine)
    shown = itk_affine(out)
    assert shear_of(shown) < 1e-5
    far = np.array([*SHAPE, 1.0])
    assert np.linalg.norm((shown - sheared(amount)) @ far) <= amount * max(SHAPE)


def test_probabilities_of_several_regions_open_on_the_grid_too(tmp_path: Path) -> None:
    path = scan(tmp_path / "a.nii.gz", sheared(0.1), None)
    header = read_header(path)
    volume = np.zeros((3, *header.canonical_shape), np.float32)
    volume[2] = 0.5
    out = tmp_path / "prob.nii.gz"
    out.write_bytes(encode_volume(volume, header))
    read = SimpleITK.ReadImage(str(out))
    assert read.GetSize() == (*SHAPE, 3)
    assert SimpleITK.GetArrayFromImage(read)[2].max() == 0.5
