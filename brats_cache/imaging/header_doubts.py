"""What a NIfTI header leaves open: geometry that another program may understand differently."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np

from brats_cache.imaging.grid import GRID_TOLERANCE_MM, largest_displacement

__all__ = [
    "FORMS_DIFFER",
    "NO_FORM",
    "OTHER_UNITS",
    "SHEARED",
    "UNSCALED",
    "header_doubts",
    "shear_of",
]

FORMS_DIFFER = "qform and sform differ; ITK may take the other and show the scan elsewhere"
NO_FORM = "neither qform nor sform is set; the directions of the axes are a guess"
OTHER_UNITS = "the unit of length is not mm; ITK converts it, here it is read as mm"
SHEARED = "the sform has shear; ITK cannot represent it"
UNSCALED = "sform and pixdim give other voxel sizes; ITK takes those of pixdim"
MAX_SHEAR = 5e-4  # displaces the far side of a head by about 0.1 mm
MAX_RELATIVE_SCALE = 1e-3
_SPATIAL_UNITS = 0x07  # bits of xyzt_units
_UNKNOWN_OR_MM = (0, 2)


def header_doubts(header: nib.Nifti1Header, shape: Sequence[int]) -> tuple[str, ...]:
    """Finds what a header leaves open about where its voxels lie.

    Args:
        header: A NIfTI-1 or NIfTI-2 header with a finite affine.
        shape: (X, Y, Z) voxels.

    Returns:
        The constants of this module that apply.
    """
    doubts = []
    has_qform, has_sform = int(header["qform_code"]) > 0, int(header["sform_code"]) > 0
    if not has_qform and not has_sform:
        doubts.append(NO_FORM)
    if has_sform:
        sform = np.asarray(header.get_sform(), np.float64)
        if shear_of(sform) > MAX_SHEAR:
            doubts.append(SHEARED)
        elif not _is_scaled(sform, header["pixdim"][1:4]):
            doubts.append(UNSCALED)
        elif has_qform and not _is_near(header, sform, shape):
            doubts.append(FORMS_DIFFER)
    if int(header["xyzt_units"]) & _SPATIAL_UNITS not in _UNKNOWN_OR_MM:
        doubts.append(OTHER_UNITS)
    return tuple(doubts)


def shear_of(affine: np.ndarray) -> float:
    """Measures how far the axes of an affine are from being perpendicular.

    Args:
        affine: (4, 4), its first three columns not zero.

    Returns:
        The largest cosine of an angle between two of them, 0 to 1.
    """
    columns = affine[:3, :3] / np.abs(affine[:3, :3]).max(axis=0)  # squares cannot overflow
    columns = columns / np.sqrt((columns**2).sum(axis=0))
    cosines = np.abs(columns.T @ columns)
    return float(max(cosines[0, 1], cosines[0, 2], cosines[1, 2]))


def _is_scaled(sform: np.ndarray, pixdim: np.ndarray) -> bool:
    """Whether the columns of the sform are as long as the voxel sizes; both in mm."""
    lengths = np.sqrt((sform[:3, :3] ** 2).sum(axis=0))
    with np.errstate(invalid="ignore"):  # of a signalling NaN, which is no size at all
        sizes = np.abs(pixdim.astype(np.float64))
    return bool((np.abs(lengths - sizes) <= MAX_RELATIVE_SCALE * lengths).all())


def _is_near(header: nib.Nifti1Header, sform: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether the qform puts the voxels where the sform does."""
    try:
        qform = np.asarray(header.get_qform(), np.float64)
    except (nib.spatialimages.HeaderDataError, ValueError):  # no rotation
        return False
    with np.errstate(all="ignore"):  # NaN is not near either
        return largest_displacement(shape, sform, qform) <= GRID_TOLERANCE_MM
