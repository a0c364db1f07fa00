"""What only the content of the scans can tell, learnt before anything is written.

Headers first, which is quick, then every voxel of a case whose headers are in order; either way all
faults of a case are reported, not only the first. The statistics found here are the ones the
builder and the predictor normalise with, so equal sources give equal rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .cases import Case, Scan
from .errors import DataFaults, Fault
from .nifti import Contents, Header, read_contents, read_header, read_labels, read_volume
from .preprocess import Normalization, Preparation, brain_of, measure

__all__ = [
    "LoadedCase",
    "Source",
    "Survey",
    "check_headers",
    "load_case",
    "load_images",
    "load_labels",
]

AFFINE_TOLERANCE_MM = 0.05  # rounding of quaternions in float32 moves a far corner by about 0.001


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source file: its path as posix text, relative to the case's DATA argument or, where it
    lies outside, absolute; its size in bytes; its xxh3_64."""

    name: str
    num_bytes: int
    checksum: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """What the volumes of one case hold.

    shape           (X, Y, Z) voxels as in the files
    affine          (4, 4) float64 of the first modality
    codes           orientation letters of the files' axes
    sources         one a modality, then the mask's where there is one
    normalizations  one a modality
    brain_pixels    (Z,) int32, canonical z
    label_values    source values that occur in the mask, 0 left out
    label_pixels    (len(label_values), Z) int32
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
        """Number of axial slices."""
        return len(self.brain_pixels)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedCase:
    """A case in memory: what was learnt of it, its canonical (Z, Y, X) volumes in modality order,
    and its brain, (Z, Y, X) bool."""

    survey: Survey
    volumes: tuple[np.ndarray, ...]
    brain: np.ndarray


def check_headers(case: Case, preparation: Preparation) -> tuple[Fault, ...]:
    """The faults that the headers of a case show: unreadable files, files that do not lie on one
    grid, slices too large to be padded."""
    faults: list[Fault] = []
    headers: list[Header] = []
    for _, scan in _scans(case):
        try:
            headers.append(read_header(scan.path))
        except DataFaults as error:
            faults += _of_case(case, error)
    for header in headers[1:]:
        faults += _grid_faults(case, headers[0], header)
    if headers and preparation.fit == "pad":
        _, height, width = headers[0].canonical_shape
        if max(height, width) > preparation.size:
            found = f"slices of {height} x {width} pixels"
            expected = f"at most {preparation.size} x {preparation.size} for --fit pad"
            path, remedy = headers[0].path, "Use --fit resize or a larger --size."
            faults.append(
                Fault(case=case.id, path=path, found=found, expected=expected, remedy=remedy)
            )
    return tuple(faults)


def load_case(case: Case, preparation: Preparation) -> LoadedCase:
    """Reads every voxel of a case and measures it. Raises `DataFaults` with all faults of the case:
    those of its headers, else those of its content."""
    if faults := check_headers(case, preparation):
        raise DataFaults(faults)
    content_faults: list[Fault] = []
    sources: list[Source] = []
    volumes: list[np.ndarray] = []
    labels: np.ndarray | None = None
    contents: Contents | None = None
    for role, scan in _scans(case):
        try:
            if contents is None or contents.header.path != scan.path:
                contents = None  # lets go of the last file before the next is inflated
                contents = read_contents(read_header(scan.path))
            sources.append(_source(case, contents))
            if role == "mask":
                labels = read_labels(contents, scan.channel)
            else:
                volumes.append(read_volume(contents, scan.channel))
                content_faults += _not_finite(case, contents.header, volumes[-1])
        except DataFaults as error:
            content_faults += _of_case(case, error)
    if content_faults:
        raise DataFaults(content_faults)
    brain = brain_of(volumes)
    header = read_header(next(iter(case.images.values())).path)
    values, pixels = _count_labels(labels, depth=len(brain))
    survey = Survey(
        case=case,
        shape=header.shape,
        affine=header.affine,
        codes=header.codes,
        sources=tuple(sources),
        normalizations=_measure_all(case, volumes, brain, preparation),
        brain_pixels=np.count_nonzero(brain, axis=(1, 2)).astype(np.int32),
        label_values=values,
        label_pixels=pixels,
    )
    return LoadedCase(survey=survey, volumes=tuple(volumes), brain=brain)


def load_images(case: Case) -> list[np.ndarray]:
    """The canonical (Z, Y, X) volumes of a case, in modality order; a 4-D file is read once."""
    return list(_volumes(case))


def load_labels(case: Case) -> np.ndarray:
    """The canonical (Z, Y, X) uint8 mask of a case in its source's labels."""
    assert case.mask is not None
    return read_labels(read_contents(read_header(case.mask.path)), case.mask.channel)


def _volumes(case: Case) -> Iterator[np.ndarray]:
    contents: Contents | None = None
    for scan in case.images.values():
        if contents is None or contents.header.path != scan.path:
            contents = read_contents(read_header(scan.path))
        yield read_volume(contents, scan.channel)


def _scans(case: Case) -> Iterator[tuple[str, Scan]]:
    yield from case.images.items()
    if case.mask is not None:
        yield "mask", case.mask


def _source(case: Case, contents: Contents) -> Source:
    path = contents.header.path  # absolute where another DATA argument holds it
    is_inside = path.is_relative_to(case.data_dir)
    name = path.relative_to(case.data_dir) if is_inside else path.absolute()
    return Source(name=name.as_posix(), num_bytes=contents.num_bytes, checksum=contents.checksum)


def _of_case(case: Case, error: DataFaults) -> list[Fault]:
    return [replace(fault, case=case.id) for fault in error.faults]


def _grid_faults(case: Case, first: Header, other: Header) -> list[Fault]:
    if other.shape != first.shape:
        found = f"{_by(other.shape)} voxels"
        expected = f"{_by(first.shape)} as in {first.path.name}"
        return [Fault(case=case.id, path=other.path, found=found, expected=expected)]
    distance = _largest_displacement(first, other)
    if distance > AFFINE_TOLERANCE_MM:
        found = f"an affine that puts voxels up to {distance:.3g} mm elsewhere"
        if other.codes != first.codes:
            found = f"axes stored as {other.codes} (voxels up to {distance:.3g} mm elsewhere)"
        grid = f"{first.path.name} ({first.codes})"
        expected = f"the grid of {grid} within {AFFINE_TOLERANCE_MM} mm"
        remedy = "Resample it, or correct its header."
        return [Fault(case=case.id, path=other.path, found=found, expected=expected, remedy=remedy)]
    return []


def _largest_displacement(first: Header, other: Header) -> float:
    """How far apart, in mm, two affines put the corners of one volume: the largest of eight."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in first.shape], [1], indexing="ij"))
    difference = (first.affine - other.affine) @ corners.reshape(4, -1)
    return float(np.linalg.norm(difference[:3], axis=0).max())


def _not_finite(case: Case, header: Header, volume: np.ndarray) -> list[Fault]:
    if volume.dtype.kind != "f":
        return []
    num_finite = int(np.count_nonzero(np.isfinite(volume)))
    if num_finite == volume.size:
        return []
    num_nan = int(np.count_nonzero(np.isnan(volume)))
    num_infinite = volume.size - num_finite - num_nan
    found = f"{num_nan} NaN and {num_infinite} infinite voxels"
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
    """The non-zero values of a mask and their pixels in each slice."""
    if labels is None:
        return (), np.zeros((0, depth), np.int32)
    flat = np.ascontiguousarray(labels).reshape(depth, -1)
    places = np.flatnonzero(flat)
    keys = places // flat.shape[1] * 256 + flat.reshape(-1)[places]
    table = np.bincount(keys, minlength=depth * 256).reshape(depth, 256)
    values = np.flatnonzero(table.any(axis=0))
    return tuple(int(value) for value in values), table[:, values].T.astype(np.int32)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
