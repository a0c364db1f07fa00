"""NIfTI headers: read from the start of a file and checked before they are trusted.

Inside this program every volume is *canonical*: an array `[z, y, x]` whose axes run to the
superior, the posterior and the left, so that `volume[z]` is an axial slice with rows towards
posterior and columns towards left. BraTS files are stored that way (LPS), so for them the canonical
array is the file's own memory; any other order of axes becomes a transposed, flipped view.
"""

from __future__ import annotations

import io
import logging
import stat
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import obliquity

from brats_cache.common.errors import file_fault
from brats_cache.imaging.foreign_files import describe_foreign_file
from brats_cache.imaging.gzip import (
    GZIP_ERRORS,
    HEADER_BYTES,
    MAX_DATA_BYTES,
    inflate_start,
    is_gzip,
)
from brats_cache.imaging.header_doubts import header_doubts
from brats_cache.imaging.nifti_faults import damaged_file, truncated_file, unreadable_file
from brats_cache.imaging.orientation import Orientation

__all__ = ["SILENT", "Header", "header_class", "read_header"]

MAX_FILE_BYTES = MAX_DATA_BYTES + (64 << 20)
MIN_HEADER_BYTES = 348  # of NIfTI-1
MAX_AXIS = 4096
SPACING_MM = (0.05, 50.0)  # beyond: metres, micrometres, or no scan of a head
MAX_OBLIQUITY_DEGREES = 20.0
MAX_IN_PLANE_ANISOTROPY = 2.0
_COMPRESSED_READ = 1 << 16  # holds the header even behind a file name and a comment
_NUMERIC_KINDS = "iuf"
# nibabel corrects small slips of a header and says so without naming the file; nobody could act on
# that.
SILENT = logging.Logger("brats.nifti")
SILENT.addHandler(logging.NullHandler())


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """What a NIfTI header says, checked.

    Attributes:
        path: The file.
        shape: (X, Y, Z) voxels as in the file.
        num_channels: Volumes along the fourth axis, 1 for a plain volume.
        dtype: Of the stored values, in the file's byte order.
        slope: Stored values are multiplied by it.
        inter: Then this is added.
        offset: First byte of the data.
        affine: (4, 4) float64, voxel to RAS mm, as nibabel's `affine` gives it.
        spacing: (dz, dy, dx) in mm, canonical order.
        codes: Orientation letters of the file's axes, such as "LPS".
        orientation: How the file's axes lie in the canonical array.
        block: The header's own bytes, from which a mask on the same grid is written.
        doubts: What another program may understand differently, of `header_doubts`.
    """

    path: Path
    shape: tuple[int, int, int]
    num_channels: int
    dtype: np.dtype
    slope: float
    inter: float
    offset: int
    affine: np.ndarray
    spacing: tuple[float, float, float]
    codes: str
    orientation: Orientation
    block: bytes
    doubts: tuple[str, ...] = ()

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        z, y, x = (self.shape[axis] for axis in self.orientation.permutation)
        return z, y, x

    @property
    def num_data_bytes(self) -> int:
        """Length of the data block, inflated."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.num_channels * self.dtype.itemsize


def read_header(path: Path) -> Header:
    """Reads and checks the header of a `.nii` or `.nii.gz` file.

    Args:
        path: The file; whether it is compressed is seen from its content.

    Raises:
        DataFaults: It is no NIfTI file, its rank, type or size is that of no volume, it is shorter
            than its header says, or its stack is not axial.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise file_fault(path, "no regular file", "a NIfTI file")
        if status.st_size > MAX_FILE_BYTES:
            found = f"a file of {status.st_size >> 20} MiB"
            raise file_fault(path, found, f"at most {MAX_FILE_BYTES >> 20} MiB for one volume")
        with open(path, "rb") as file:
            start = file.read(_COMPRESSED_READ)
        is_compressed = is_gzip(start)
        if is_compressed:
            start = inflate_start(start)
    except OSError as error:
        raise unreadable_file(path, error) from None
    except GZIP_ERRORS as error:
        raise damaged_file(path, error) from None
    _refuse_foreign(path, start)
    header = _parse(path, start)
    wanted = header.offset + header.num_data_bytes
    if not is_compressed and status.st_size < wanted:
        raise truncated_file(path, status.st_size, wanted)
    return header


def header_class(start: bytes) -> type[nib.Nifti1Header]:
    """Returns the class of a header: NIfTI-2 where its first number, its size, is 540 in either
    byte order."""
    is_second = start[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
    return nib.Nifti2Header if is_second else nib.Nifti1Header


def _refuse_foreign(path: Path, start: bytes) -> None:
    """Raises for what is saved under the name of a NIfTI file and is something else."""
    if foreign := describe_foreign_file(start[:HEADER_BYTES]):
        what, remedy = foreign
        raise file_fault(path, what, "a NIfTI file", remedy)


def _parse(path: Path, start: bytes) -> Header:
    """The header in the first bytes of a file, inflated."""
    if len(start) < MIN_HEADER_BYTES:
        raise truncated_file(path, len(start), 352)
    kind = header_class(start)
    size = kind.sizeof_hdr
    try:
        raw = kind.from_fileobj(io.BytesIO(start[:size]), check=False)
        raw.check_fix(logger=SILENT, error_level=40)
        shape = tuple(int(n) for n in raw.get_data_shape())
        dtype = raw.get_data_dtype()
        offset = int(raw["vox_offset"])
        slope, inter = raw.get_slope_inter()
        affine = np.asarray(raw.get_best_affine(), dtype=np.float64)
    except Exception as error:  # nibabel raises many kinds for the many ways of being no header
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise file_fault(path, f"no NIfTI header ({reason})", "a NIfTI-1 or NIfTI-2 file") from None
    if raw["magic"].item() != kind.single_magic:
        found = "the header of a pair of files (.hdr and .img)"
        raise file_fault(path, found, "a NIfTI file in one piece", "Convert the pair first.")
    spatial, num_channels = _spatial_shape(path, shape)
    if dtype.kind not in _NUMERIC_KINDS or dtype.itemsize > 8:
        raise file_fault(path, f"data type {dtype}", "integers or floats of 8 to 64 bits")
    num_voxels = int(np.prod(spatial, dtype=np.int64))
    num_bytes = max(num_voxels * num_channels * dtype.itemsize, num_voxels * 4)
    if max(spatial) > MAX_AXIS or num_bytes > MAX_DATA_BYTES:
        size_text = " x ".join(map(str, shape))
        raise file_fault(
            path,
            f"a volume of {size_text} voxels",
            f"axes up to {MAX_AXIS} and at most {MAX_DATA_BYTES >> 20} MiB of data",
        )
    if not size <= offset <= 1 << 26:
        raise file_fault(path, f"data starting at byte {offset}", f"a start from {size} on")
    slope = 1.0 if slope is None else float(slope)
    inter = 0.0 if inter is None else float(inter)
    spacing = _check_geometry(path, affine)
    orientation = Orientation.of(affine)
    return Header(
        path=path,
        shape=spatial,
        num_channels=num_channels,
        dtype=dtype,
        slope=slope,
        inter=inter,
        offset=offset,
        affine=affine,
        spacing=spacing,
        codes=orientation.codes,
        orientation=orientation,
        block=start[:size],
        doubts=header_doubts(raw, spatial),
    )


def _spatial_shape(path: Path, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], int]:
    """(X, Y, Z) and the number of channels of a 3-D or 4-D shape."""
    text = " x ".join(map(str, shape))
    if len(shape) > 4 and all(n == 1 for n in shape[4:]):
        shape = shape[:4]
    if len(shape) not in (3, 4):
        raise file_fault(path, f"{len(shape)}-D data ({text})", "a volume (X x Y x Z)")
    if any(n < 1 for n in shape):
        raise file_fault(path, f"a volume of {text} voxels", "at least one voxel along each axis")
    x, y, z = shape[:3]
    return (x, y, z), (shape[3] if len(shape) == 4 else 1)


def _check_geometry(path: Path, affine: np.ndarray) -> tuple[float, float, float]:
    """The canonical spacing (dz, dy, dx) in mm of an affine that describes an axial stack."""
    columns = affine[:3, :3]
    if not np.isfinite(affine).all():
        raise file_fault(path, "an affine with NaN or infinity", "three finite axes")
    low, high = SPACING_MM
    spacing = np.abs(columns).max(axis=0)  # the length, before squares of it can overflow
    if (spacing < low / 2).any() or (spacing > high).any():
        sides = " x ".join(f"{side:.3g}" for side in spacing)
        raise file_fault(path, f"voxels of {sides} mm", f"sides of {low:g} to {high:g} mm")
    spacing = np.sqrt((columns**2).sum(axis=0))
    if abs(np.linalg.det(columns / spacing)) < 1e-6:
        raise file_fault(path, "an affine that is no grid in space", "three independent axes")
    degrees = float(np.degrees(obliquity(affine)).max())
    if degrees > MAX_OBLIQUITY_DEGREES:
        raise file_fault(
            path,
            f"an oblique stack, {degrees:.0f} degrees off the axes of the body",
            f"axial slices within {MAX_OBLIQUITY_DEGREES:.0f} degrees",
            "Resample it to an axial grid first.",
        )
    dz, dy, dx = (float(spacing[axis]) for axis in Orientation.of(affine).permutation)
    if max(dx, dy) > MAX_IN_PLANE_ANISOTROPY * min(dx, dy):
        stack = "coronal" if dy > dx else "sagittal"
        raise file_fault(
            path,
            f"a {stack} stack ({dx:.3g} x {dy:.3g} x {dz:.3g} mm along left, posterior, superior)",
            f"axial slices whose sides differ at most {MAX_IN_PLANE_ANISOTROPY:g} times",
            "Resample it to an axial grid first.",
        )
    return dz, dy, dx
