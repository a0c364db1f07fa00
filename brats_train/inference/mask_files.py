"""Masks as NIfTI files: their names, writing them, and reading masks made elsewhere.

Everything here is numpy, so that the processes that score cases start without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip

from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.names import check_file_name
from brats_cache.imaging.grid import GRID_TOLERANCE_MM, Grid, largest_displacement
from brats_cache.imaging.labels import NO_LABEL, Scheme, canonical_table
from brats_cache.imaging.nifti import read_contents, read_labels
from brats_cache.imaging.nifti_header import Header, read_header
from brats_cache.imaging.orientation import Orientation

__all__ = ["encode_mask", "mask_path", "read_mask", "refuse_existing"]


def mask_path(folder: Path, case: str, suffix: str = ".nii.gz") -> Path:
    """The file of a case's mask in a folder; the only way from an id to a file name.

    Raises:
        DataFaults: The id leads out of the folder, as one in a forged cache may.
    """
    try:
        check_file_name(case)
    except ValueError as error:
        found, expected = f"an id that is no file name: {error}", "a name without separators"
        raise DataFaults([Fault(case=case, path=None, found=found, expected=expected)]) from None
    return folder / f"{case}{suffix}"


def refuse_existing(files_by_case: Sequence[Sequence[Path]]) -> None:
    """Refuses to replace what `predict` wrote before.

    Args:
        files_by_case: The files that would be written of each case.

    Raises:
        BratsError: One of them exists.
    """
    found = [[path for path in files if path.exists()] for files in files_by_case]
    if not any(found):
        return
    first, num_cases = next(paths[0] for paths in found if paths), sum(map(bool, found))
    others = f", as do files of {num_cases} of the {len(found)} cases"
    raise BratsError(
        f"{first}: exists already{others if len(found) > 1 else ''}. "
        "Choose another --out, go on with --resume, or replace them with --overwrite."
    )


def encode_mask(mask: np.ndarray, grid: Grid) -> bytes:
    """Encodes a mask as a `.nii.gz` without the scan whose header could be copied.

    Args:
        mask: Canonical (Z, Y, X) uint8.
        grid: The scan's grid, which qform and sform give alike, with code 1.

    Returns:
        The bytes of the file, equal for equal arguments.
    """
    source = np.asarray(Orientation.of(grid.affine).to_source(mask))
    image = nib.Nifti1Image(source, grid.affine)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    image.header.set_xyzt_units("mm")
    return igzip.compress(image.to_bytes(), 2, mtime=0)


def read_mask(path: Path, case: str, grid: Grid, scheme: Scheme) -> np.ndarray:
    """Reads a mask made elsewhere, put into the canonical orientation by its own affine.

    Args:
        path: A `.nii` or `.nii.gz` file, its axes in any order.
        case: Id of the case, for messages.
        grid: The scan's grid, on which the mask must lie.
        scheme: What its values mean.

    Returns:
        (Z, Y, X) uint8 canonical labels.

    Raises:
        DataFaults: The file cannot be read, does not lie on `grid`, or holds a value that `scheme`
            has not.
    """
    try:
        header = read_header(path)
        fault = _misplaced(header, case, grid)
        labels = None if fault else read_labels(read_contents(header))
    except DataFaults as error:
        raise DataFaults([replace(fault, case=case) for fault in error.faults]) from None
    if labels is None:
        assert fault is not None
        raise DataFaults([fault])
    canonical = canonical_table(scheme)[labels]
    if (canonical == NO_LABEL).any():
        values = ", ".join(str(value) for value in np.unique(labels[canonical == NO_LABEL])[:5])
        expected = f"the labels of {scheme.name}, {', '.join(map(str, sorted(scheme.values)))}"
        raise DataFaults([Fault(case=case, path=path, found=f"values {values}", expected=expected)])
    return canonical


def _misplaced(header: Header, case: str, grid: Grid) -> Fault | None:
    own = Grid(shape=header.shape, affine=header.affine)
    if own.canonical_shape != grid.canonical_shape:
        found = f"{_by(header.shape)} voxels"
        expected = f"the scan's grid of {_by(grid.shape)}, in any order of the axes"
        remedy = "Resample it to the scan."
    else:
        distance = largest_displacement(
            own.canonical_shape, own.canonical_affine, grid.canonical_affine
        )
        if distance <= GRID_TOLERANCE_MM:
            return None
        found = f"an affine that puts voxels up to {distance:.3g} mm away from the scan's"
        expected = f"the scan's grid within {GRID_TOLERANCE_MM} mm"
        remedy = "Write the mask with the scan's own affine."
    return Fault(case=case, path=header.path, found=found, expected=expected, remedy=remedy)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
