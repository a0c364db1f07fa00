"""Masks on the scan's own grid: from probabilities to regions and labels, to NIfTI and from it.

Everything here is numpy, so that the processes that score cases start without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip

from brats_cache.common.errors import DataFaults, Fault
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import NO_LABEL, Scheme, canonical_table, source_table
from brats_cache.imaging.nifti import Header, read_contents, read_header, read_labels
from brats_cache.imaging.orientation import Orientation
from brats_train.inference.components import drop_small

__all__ = [
    "Grid",
    "encode_mask",
    "grid_of",
    "label_volume",
    "read_mask",
    "regions_of",
    "source_labels",
]

GRID_TOLERANCE_MM = 0.05  # as among the files of a case


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Where a scan's voxels lie: (X, Y, Z) as in its file, and (4, 4) voxel to RAS mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        z, y, x = (self.shape[axis] for axis in Orientation.of(self.affine).permutation)
        return z, y, x

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a voxel in mm along Z, Y, X."""
        sides = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        dz, dy, dx = (float(sides[axis]) for axis in Orientation.of(self.affine).permutation)
        return dz, dy, dx

    def corners(self) -> np.ndarray:
        """Where the eight corner voxels of the canonical (Z, Y, X) array lie, (3, 8) mm: equal for
        files that store one grid in different orders of axes."""
        orientation = Orientation.of(self.affine)
        ends = []
        for axis, is_flipped in zip(orientation.permutation, orientation.flips, strict=True):
            last = self.shape[axis] - 1
            ends.append((last, 0) if is_flipped else (0, last))
        index = np.ones((4, 8))
        index[list(orientation.permutation)] = np.array(np.meshgrid(*ends, indexing="ij")).reshape(
            3, 8
        )
        place: np.ndarray = (self.affine @ index)[:3]
        return place


def regions_of(
    probabilities: np.ndarray,
    regions: Sequence[str],
    places: np.ndarray,
    depth: int,
    *,
    threshold: float,
    min_component_voxels: int,
) -> np.ndarray:
    """The mask of each region, (K, Z, Y, X) bool; slices that no row stands for are background.

    probabilities  (n, K, Y, X) float32
    places         (n,) z of each row
    depth          Z

    Regions are nested: a voxel of ET is one of TC, and one of TC is one of WT, as in the labels
    that are written; so what is scored is what is written.
    """
    _, num_regions, height, width = probabilities.shape
    masks = np.zeros((num_regions, depth, height, width), bool)
    for channel, mask in enumerate(masks):
        mask[places] = probabilities[:, channel] >= threshold
        masks[channel] = drop_small(mask, min_component_voxels)
    channels = {region: channel for channel, region in enumerate(regions)}
    for inner, outer in (("et", "tc"), ("tc", "wt"), ("et", "wt")):
        if inner in channels and outer in channels:
            masks[channels[outer]] |= masks[channels[inner]]
    return masks


def label_volume(is_in_region: np.ndarray, regions: Sequence[str]) -> np.ndarray:
    """(K, Z, Y, X) bool -> (Z, Y, X) uint8 canonical labels.

    Each voxel takes the innermost region that claims it: ET 3, else TC 1, else WT 2.
    """
    labels = np.zeros(is_in_region.shape[1:], np.uint8)
    for region, label in (("wt", 2), ("tc", 1), ("et", 3)):
        if region in regions:
            labels[is_in_region[list(regions).index(region)]] = label
    return labels


def source_labels(is_in_region: np.ndarray, regions: Sequence[str], scheme: Scheme) -> np.ndarray:
    """(K, Z, Y, X) bool -> (Z, Y, X) uint8 in the labels of `scheme`; the whole tumour alone is 1
    in any."""
    if tuple(regions) == ("wt",):
        return is_in_region[0].astype(np.uint8)
    return source_table(scheme)[label_volume(is_in_region, regions)]


def encode_mask(mask: np.ndarray, grid: Grid) -> bytes:
    """A canonical (Z, Y, X) uint8 mask as the bytes of a `.nii.gz` on `grid`, for where the scan
    whose header could be copied is not at hand; qform and sform say the same, with code 1."""
    source = np.asarray(Orientation.of(grid.affine).to_source(mask))
    image = nib.Nifti1Image(source, grid.affine)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    image.header.set_xyzt_units("mm")
    return igzip.compress(image.to_bytes(), 2, mtime=0)


def read_mask(path: Path, case: str, grid: Grid, scheme: Scheme) -> np.ndarray:
    """A mask made elsewhere as (Z, Y, X) uint8 canonical labels, put into the canonical orientation
    by its own affine.

    Raises `DataFaults` naming file and case where it cannot be read, does not lie on `grid`, or
    holds a value that `scheme` has not.
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
        distance = float(np.linalg.norm(own.corners() - grid.corners(), axis=0).max())
        if distance <= GRID_TOLERANCE_MM:
            return None
        found = f"an affine that puts voxels up to {distance:.3g} mm away from the scan's"
        expected = f"the scan's grid within {GRID_TOLERANCE_MM} mm"
        remedy = "Write the mask with the scan's own affine."
    return Fault(case=case, path=header.path, found=found, expected=expected, remedy=remedy)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def grid_of(cache: Cache, case: int) -> Grid:
    """The grid of the scan of case number `case`."""
    record = cache.cases[case]
    x, y, z = (int(n) for n in record["native_shape"])
    return Grid(shape=(x, y, z), affine=record["affine"])
