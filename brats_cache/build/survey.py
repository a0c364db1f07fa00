"""Surveys a case before a build: reads its scans, checks them and measures their intensities.

Every file of a case is checked, even after a fault in another, so that all faults are reported at
once. The build and the predictor normalise with the statistics measured here, so equal sources give
equal rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brats_cache.build.mask_checks import candidate_fault
from brats_cache.common.errors import DataFaults, Fault
from brats_cache.discovery.cases import Case, Scan
from brats_cache.imaging.grid import GRID_TOLERANCE_MM, largest_displacement
from brats_cache.imaging.nifti import Contents, read_contents, read_labels, read_volume
from brats_cache.imaging.nifti_header import Header, read_header
from brats_cache.imaging.preprocess import Normalization, Preparation, brain_of, measure

__all__ = ["HeaderCheck", "LoadedCase", "Source", "Survey", "check_header", "load_case"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source file.

    Attributes:
        name: POSIX path relative to the case's DATA argument; absolute for a file outside it.
        num_bytes: Size of the file in bytes.
        checksum: xxh3_64 of the file.
    """

    name: str
    num_bytes: int
    checksum: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """What the scans and the mask of one case hold.

    Attributes:
        case: The case.
        shape: (X, Y, Z) in voxels, as stored.
        affine: (4, 4) float64 of the first modality, voxel indices to mm.
        codes: Orientation of the stored axes, such as "LPS".
        sources: A file for each modality, then that of the mask if there is one.
        normalizations: One for each modality.
        brain_pixels: (Z,) int32, number of brain pixels in each slice, by canonical z.
        label_values: The source values that occur in the mask, ascending, without 0.
        label_pixels: (len(label_values), Z) int32, number of pixels of each value in each slice.
    """

    case: Case
    shape: tuple[int, int, int]
    affine: np.ndarray
    codes: str
    sources: tuple[Source, ...]
    normalizations: tuple[Normalization, ...]
    brain_pixels: np.ndarray
    label_values: tuple[int, ...]
    label_pixels: np.ndarray

    @property
    def depth(self) -> int:
        """Z, the number of axial slices."""
        return len(self.brain_pixels)


@dataclass(frozen=True, kw_only=True)
class HeaderCheck:
    """The findings of a case that every part of a sharded build needs.

    Attributes:
        case: The case.
        label_values: The source values that occur in its mask, ascending, without 0; empty where
            only headers were read.
        doubts: What its headers leave open, see `imaging.header_doubts`.
    """

    case: Case
    label_values: tuple[int, ...]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedCase:
    """A case in memory.

    Attributes:
        survey: What was measured.
        volumes: Canonical (Z, Y, X) volumes in modality order, in the dtype they were read in.
        labels: Canonical (Z, Y, X) uint8, the source values of the mask; None without one.
        brain: (Z, Y, X) bool.
    """

    survey: Survey
    volumes: tuple[np.ndarray, ...]
    labels: np.ndarray | None
    brain: np.ndarray


def load_case(case: Case, preparation: Preparation) -> LoadedCase:
    """Reads and measures the scans and the mask of a case.

    Args:
        case: The case.
        preparation: How its images will be prepared.

    Returns:
        The volumes, the brain, and the survey of them.

    Raises:
        DataFaults: All faults of its files; a file with a faulty header is not read further.
    """
    headers, faults = _read_headers(case, preparation)
    sources: list[Source] = []
    volumes: list[np.ndarray] = []
    labels: np.ndarray | None = None
    contents: Contents | None = None
    for role, scan in _scans(case):
        if scan.path not in headers:
            continue
        try:
            if contents is None or contents.header.path != scan.path:
                contents = None  # frees the last file before the next is decompressed
                contents = read_contents(headers[scan.path])
            sources.append(_source(case, contents))
            if role == "mask":
                labels = read_labels(contents, scan.channel)
            else:
                volumes.append(read_volume(contents, scan.channel))
                faults += _finite_faults(case, role, contents.header, volumes[-1])
        except DataFaults as error:
            faults += _with_case(case, error)
    if faults:
        raise DataFaults(list(dict.fromkeys(faults)))
    brain = brain_of(volumes)
    header = headers[next(iter(case.images.values())).path]
    if fault := candidate_fault(case, header, brain):
        raise DataFaults([fault])
    values, pixels = _count_labels(labels, depth=len(brain))
    survey = Survey(
        case=case,
        shape=header.shape,
        affine=header.affine,
        codes=header.codes,
        sources=tuple(sources),
        normalizations=_measure_all(case, volumes, brain, preparation),
        brain_pixels=np.array([np.count_nonzero(inside) for inside in brain], np.int32),
        label_values=values,
        label_pixels=pixels,
    )
    return LoadedCase(survey=survey, volumes=tuple(volumes), labels=labels, brain=brain)


def check_header(case: Case, preparation: Preparation, *, with_mask: bool) -> HeaderCheck:
    """Checks the headers of a case without reading its images.

    Args:
        case: The case.
        preparation: How its images will be prepared.
        with_mask: Whether to read the mask as well.

    Returns:
        What the headers, and the mask if read, show.

    Raises:
        DataFaults: All faults of the headers and of the mask.
    """
    headers, faults = _read_headers(case, preparation)
    values: tuple[int, ...] = ()
    if with_mask and case.mask is not None and case.mask.path in headers:
        try:
            labels = read_labels(read_contents(headers[case.mask.path]), case.mask.channel)
            values, _ = _count_labels(labels, depth=len(labels))
        except DataFaults as error:
            faults += _with_case(case, error)
    if faults:
        raise DataFaults(list(dict.fromkeys(faults)))
    doubts = dict.fromkeys(doubt for header in headers.values() for doubt in header.doubts)
    return HeaderCheck(case=case, label_values=values, doubts=tuple(doubts))


def _read_headers(case: Case, preparation: Preparation) -> tuple[dict[Path, Header], list[Fault]]:
    """Reads the headers of a case; returns those that can be read by path, and all faults.

    Faults are unreadable headers, files on different grids, and slices too large for --fit pad.
    """
    faults: list[Fault] = []
    headers: dict[Path, Header] = {}
    for path in dict.fromkeys(scan.path for _, scan in _scans(case)):
        try:
            headers[path] = read_header(path)
        except DataFaults as error:
            faults += _with_case(case, error)
    if not headers:
        return headers, faults
    first, *others = headers.values()
    for other in others:
        faults += _grid_faults(case, first, other)
    _, height, width = first.canonical_shape
    if preparation.fit == "pad" and max(height, width) > preparation.size:
        found = f"slices of {height} x {width} pixels"
        expected = f"at most {preparation.size} x {preparation.size} for --fit pad"
        remedy = "Use --fit resize or a larger --size."
        faults.append(
            Fault(case=case.id, path=first.path, found=found, expected=expected, remedy=remedy)
        )
    return headers, faults


def _scans(case: Case) -> Iterator[tuple[str, Scan]]:
    yield from case.images.items()
    if case.mask is not None:
        yield "mask", case.mask


def _source(case: Case, contents: Contents) -> Source:
    path = contents.header.path  # absolute under another DATA argument
    is_inside = path.is_relative_to(case.data_dir)
    name = path.relative_to(case.data_dir) if is_inside else path.absolute()
    return Source(name=name.as_posix(), num_bytes=contents.num_bytes, checksum=contents.checksum)


def _with_case(case: Case, error: DataFaults) -> list[Fault]:
    return [replace(fault, case=case.id) for fault in error.faults]


def _grid_faults(case: Case, first: Header, other: Header) -> list[Fault]:
    """Checks that two files lie on one grid within `GRID_TOLERANCE_MM`."""
    if other.shape != first.shape:
        found = f"{_format_shape(other.shape)} voxels"
        expected = f"{_format_shape(first.shape)} as in {first.path.name}"
        return [Fault(case=case.id, path=other.path, found=found, expected=expected)]
    distance = largest_displacement(first.shape, first.affine, other.affine)
    if distance > GRID_TOLERANCE_MM:
        found = f"an affine that puts voxels up to {distance:.3g} mm elsewhere"
        if other.codes != first.codes:
            found = f"axes stored as {other.codes} (voxels up to {distance:.3g} mm elsewhere)"
        grid = f"{first.path.name} ({first.codes})"
        expected = f"the grid of {grid} within {GRID_TOLERANCE_MM} mm"
        remedy = "Resample it, or correct its header."
        return [Fault(case=case.id, path=other.path, found=found, expected=expected, remedy=remedy)]
    return []


def _finite_faults(case: Case, role: str, header: Header, volume: np.ndarray) -> list[Fault]:
    if volume.dtype.kind != "f":
        return []
    num_finite = int(np.count_nonzero(np.isfinite(volume)))
    if num_finite == volume.size:
        return []
    num_nan = int(np.count_nonzero(np.isnan(volume)))
    num_infinite = volume.size - num_finite - num_nan
    found = f"{num_nan} NaN and {num_infinite} infinite voxels in {role}"
    remedy = "Repair the scan, or leave the case out with --skip-bad."
    return [
        Fault(case=case.id, path=header.path, found=found, expected="finite values", remedy=remedy)
    ]


def _measure_all(
    case: Case, volumes: list[np.ndarray], brain: np.ndarray, preparation: Preparation
) -> tuple[Normalization, ...]:
    if not brain.any():
        path = next(iter(case.images.values())).path.parent
        found = "no voxel that is not zero"
        raise DataFaults(
            [Fault(case=case.id, path=path, found=found, expected="a brain in the scans")]
        )
    normalizations: list[Normalization] = []
    faults: list[Fault] = []
    for volume, (modality, scan) in zip(volumes, case.images.items(), strict=True):
        try:
            normalizations.append(measure(volume[brain], preparation.normalize))
        except ValueError as error:
            expected = f"a {modality} that --normalize {preparation.normalize} can take"
            faults.append(Fault(case=case.id, path=scan.path, found=str(error), expected=expected))
    if faults:
        raise DataFaults(faults)
    return tuple(normalizations)


def _count_labels(labels: np.ndarray | None, depth: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Returns the non-zero values of a mask, and (values, Z) int32 pixels of each in each slice."""
    if labels is None:
        return (), np.zeros((0, depth), np.int32)
    table = np.zeros((depth, 256), np.int32)
    for counts, inside in zip(table, labels, strict=True):
        if np.count_nonzero(inside):  # far quicker than counting a slice of nothing but zeros
            counts += np.bincount(inside[inside != 0], minlength=256)
    values = np.flatnonzero(table.any(axis=0))
    return tuple(int(value) for value in values), np.ascontiguousarray(table[:, values].T)


def _format_shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
