"""NIfTI files: a header checked before it is trusted, a volume read once and whole, a mask written
back on the grid of its source.

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
import xxhash
from isal import igzip
from nibabel.affines import obliquity

from brats_cache.common.errors import DataFaults, Fault
from brats_cache.imaging.gzip import (
    CHUNK_BYTES,
    GZIP_ERRORS,
    MAX_DATA_BYTES,
    inflate,
    inflate_start,
    is_gzip,
)
from brats_cache.imaging.orientation import Orientation

__all__ = [
    "Contents",
    "Header",
    "encode_volume",
    "read_contents",
    "read_header",
    "read_labels",
    "read_volume",
]

MAX_FILE_BYTES = MAX_DATA_BYTES + (64 << 20)
MAX_AXIS = 4096
SPACING_MM = (0.05, 50.0)  # beyond: metres, micrometres, or no scan of a head
MAX_OBLIQUITY_DEGREES = 20.0
MAX_IN_PLANE_ANISOTROPY = 2.0
LABEL_TOLERANCE = 1e-3
_COMPRESSED_READ = 1 << 16  # holds them even behind a file name and a comment
_NUM_SHOWN = 6  # different wrong values that are collected; one fewer is quoted
_NUMERIC_KINDS = "iuf"
# nibabel mends small slips of a header and says so without naming the file; nobody could act on it.
_SILENT = logging.Logger("brats.nifti")
_SILENT.addHandler(logging.NullHandler())


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """What a NIfTI header says, checked.

    shape        (X, Y, Z) voxels as in the file
    num_channels volumes along the fourth axis, 1 for a plain volume
    spacing      (dz, dy, dx) in mm, canonical order
    affine       (4, 4) float64, voxel to RAS mm, as nibabel's `affine` gives it
    codes        orientation letters of the file's axes, such as "LPS"
    block        the header's own bytes, from which a mask on the same grid is written
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

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        z, y, x = (self.shape[axis] for axis in self.orientation.permutation)
        return z, y, x

    @property
    def num_data_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.num_channels * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """A file read once: its size in bytes, its xxh3_64 checksum and its inflated data block."""

    header: Header
    num_bytes: int
    checksum: int
    data: memoryview


def read_header(path: Path) -> Header:
    """Reads and checks the header of one `.nii` or `.nii.gz` file.

    Raises `DataFaults` for what is no NIfTI, for a rank, a type or a size that is no volume, for a
    file shorter than its header promises, and for stacks that are not axial.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise _fault(path, "no regular file", "a NIfTI file")
        if status.st_size > MAX_FILE_BYTES:
            found = f"a file of {status.st_size >> 20} MiB"
            raise _fault(path, found, f"at most {MAX_FILE_BYTES >> 20} MiB for one volume")
        with open(path, "rb") as file:
            start = file.read(_COMPRESSED_READ)
        is_compressed = is_gzip(start)
        if is_compressed:
            start = inflate_start(start)
    except OSError as error:
        raise _unreadable(path, error) from None
    except GZIP_ERRORS as error:
        raise _damaged(path, error) from None
    header = _parse(path, start)
    wanted = header.offset + header.num_data_bytes
    if not is_compressed and status.st_size < wanted:
        raise _truncated(path, status.st_size, wanted)
    return header


def read_contents(header: Header) -> Contents:
    """Reads the whole file of `header`, once, inflating it where it is gzipped.

    Raises `DataFaults` where the file is truncated, damaged or holds less than its header says.
    """
    path = header.path
    wanted = header.offset + header.num_data_bytes
    try:
        raw = path.read_bytes()
        data = memoryview(inflate(raw, wanted) if is_gzip(raw) else raw)
    except OSError as error:
        raise _unreadable(path, error) from None
    except GZIP_ERRORS as error:
        raise _damaged(path, error) from None
    if len(data) < wanted:
        raise _truncated(path, len(data), wanted)
    return Contents(
        header=header,
        num_bytes=len(raw),
        checksum=xxhash.xxh3_64_intdigest(raw),
        data=data[header.offset : wanted],
    )


def read_volume(contents: Contents, channel: int | None = None) -> np.ndarray:
    """The canonical (Z, Y, X) volume of a file, or of one channel of a 4-D file.

    Unscaled 8- and 16-bit integers keep their type; everything else becomes float32, with
    scl_slope and scl_inter applied in float64 before. Raises `DataFaults` where a channel is
    needed and not said, or said and not there.
    """
    header = contents.header
    if channel is None and header.num_channels != 1:
        found = f"4-D data with {header.num_channels} volumes"
        raise _fault(header.path, found, "one volume a file (X x Y x Z)")
    index = channel or 0
    if index >= header.num_channels:
        found = f"{header.num_channels} volumes along the fourth axis"
        raise _fault(header.path, found, f"at least {index + 1}, as dataset.json says")
    num_voxels = int(np.prod(header.shape, dtype=np.int64))
    flat = np.frombuffer(
        contents.data,
        header.dtype,
        count=num_voxels,
        offset=index * num_voxels * header.dtype.itemsize,
    )
    native = flat.dtype.newbyteorder("=")
    # What overflows float32 becomes infinity, which the survey refuses.
    with np.errstate(over="ignore", invalid="ignore"):
        if (header.slope, header.inter) != (1.0, 0.0):
            flat = _scaled(flat, header.slope, header.inter)
        elif native.kind == "f" or native.itemsize > 2:
            flat = flat.astype(np.float32, copy=False)
        else:
            flat = flat.astype(native, copy=False)
    return header.orientation.to_canonical(flat.reshape(header.shape, order="F"))


def read_labels(contents: Contents, channel: int | None = None) -> np.ndarray:
    """The canonical (Z, Y, X) labels of a segmentation file as uint8.

    Values within 1e-3 of an integer count as it. Raises `DataFaults` for any other value, quoting
    it, and for values outside 0 to 255.
    """
    volume = read_volume(contents, channel)
    if volume.dtype == np.uint8:
        return volume
    labels = np.empty(volume.shape, np.uint8)
    num_wrong, values = 0, np.empty(0)
    for inside, whole in zip(volume, labels, strict=True):  # a slice at a time: copies stay small
        nearest = np.rint(inside) if inside.dtype.kind == "f" else inside
        with np.errstate(invalid="ignore"):  # infinity minus itself is NaN, near nothing
            is_label = np.abs(inside - nearest) <= LABEL_TOLERANCE
            is_label &= (nearest >= 0) & (nearest <= 255)
            whole[:] = nearest
        if not is_label.all():
            num_wrong += int(np.count_nonzero(~is_label))
            values = np.unique([*values, *np.unique(inside[~is_label])[:_NUM_SHOWN]])
    if num_wrong:
        shown = ", ".join(f"{value:g}" for value in values[: _NUM_SHOWN - 1])
        shown += ", ..." if len(values) >= _NUM_SHOWN else ""
        found = f"{num_wrong} voxels with values that are no label ({shown})"
        raise _fault(contents.header.path, found, "whole numbers from 0 to 255")
    return labels


def _scaled(flat: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """`flat * slope + inter` in float64, piece by piece, as float32."""
    scaled = np.empty(flat.shape, np.float32)
    for start in range(0, len(flat), CHUNK_BYTES):
        piece = flat[start : start + CHUNK_BYTES].astype(np.float64)
        scaled[start : start + CHUNK_BYTES] = piece * slope + inter
    return scaled


def encode_volume(volume: np.ndarray, like: Header, description: str = "brats") -> bytes:
    """A canonical (Z, Y, X) volume as the bytes of a `.nii.gz` on the grid of `like`: same shape,
    affine, qform and sform codes and orientation, unscaled, in `volume`'s own dtype. (K, Z, Y, X)
    becomes a 4-D file with K channels. `description`, up to 79 ASCII characters, goes into the
    header. Equal input gives equal bytes."""
    if volume.shape[-3:] != like.canonical_shape:
        raise ValueError(
            f"volume is {volume.shape}, the grid of {like.path} {like.canonical_shape}"
        )
    header = _header_class(like.block).from_fileobj(io.BytesIO(like.block), check=False)
    header["vox_offset"] = 0  # nibabel's to choose
    header.check_fix(logger=_SILENT, error_level=50)
    header.set_data_dtype(volume.dtype)
    header.set_slope_inter(1.0, 0.0)
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = description.encode("ascii")
    header["intent_code"] = 0
    image_class = nib.Nifti2Image if len(like.block) == 540 else nib.Nifti1Image
    if volume.ndim == 4:
        source = np.stack([like.orientation.to_source(channel).T for channel in volume]).T
    else:
        source = np.asarray(like.orientation.to_source(volume))
    image = image_class(source, None, header=header)
    if volume.ndim == 4:  # a step of 0 between channels is no step to some readers
        image.header.set_zooms((*image.header.get_zooms()[:3], 1.0))
    return igzip.compress(image.to_bytes(), 2, mtime=0)


def _parse(path: Path, start: bytes) -> Header:
    if len(start) < 348:
        raise _truncated(path, len(start), 352)
    kind = _header_class(start)
    size = kind.sizeof_hdr
    try:
        raw = kind.from_fileobj(io.BytesIO(start[:size]), check=False)
        raw.check_fix(logger=_SILENT, error_level=40)
        shape = tuple(int(n) for n in raw.get_data_shape())
        dtype = raw.get_data_dtype()
        offset = int(raw["vox_offset"])
        slope, inter = raw.get_slope_inter()
        affine = np.asarray(raw.get_best_affine(), dtype=np.float64)
    except Exception as error:  # nibabel raises many kinds for the many ways of being no header
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise _fault(path, f"no NIfTI header ({reason})", "a NIfTI-1 or NIfTI-2 file") from None
    if raw["magic"].item() != kind.single_magic:
        found = "the header of a pair of files (.hdr and .img)"
        raise _fault(path, found, "a NIfTI file in one piece", "Convert the pair first.")
    spatial, num_channels = _spatial_shape(path, shape)
    if dtype.kind not in _NUMERIC_KINDS or dtype.itemsize > 8:
        raise _fault(path, f"data type {dtype}", "integers or floats of 8 to 64 bits")
    num_voxels = int(np.prod(spatial, dtype=np.int64))
    num_bytes = max(num_voxels * num_channels * dtype.itemsize, num_voxels * 4)
    if max(spatial) > MAX_AXIS or num_bytes > MAX_DATA_BYTES:
        size_text = " x ".join(map(str, shape))
        raise _fault(
            path,
            f"a volume of {size_text} voxels",
            f"axes up to {MAX_AXIS} and at most {MAX_DATA_BYTES >> 20} MiB of data",
        )
    if not size <= offset <= 1 << 26:
        raise _fault(path, f"data starting at byte {offset}", f"a start from {size} on")
    slope = 1.0 if slope is None else float(slope)
    inter = 0.0 if inter is None else float(inter)
    spacing = _check_geometry(path, affine)
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
        codes="".join(nib.aff2axcodes(affine)),
        orientation=Orientation.of(affine),
        block=start[:size],
    )


def _spatial_shape(path: Path, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], int]:
    """(X, Y, Z) and the number of channels of a 3-D or 4-D shape."""
    text = " x ".join(map(str, shape))
    if len(shape) > 4 and all(n == 1 for n in shape[4:]):
        shape = shape[:4]
    if len(shape) not in (3, 4):
        raise _fault(path, f"{len(shape)}-D data ({text})", "a volume (X x Y x Z)")
    if any(n < 1 for n in shape):
        raise _fault(path, f"a volume of {text} voxels", "at least one voxel along each axis")
    x, y, z = shape[:3]
    return (x, y, z), (shape[3] if len(shape) == 4 else 1)


def _check_geometry(path: Path, affine: np.ndarray) -> tuple[float, float, float]:
    """The canonical spacing (dz, dy, dx) in mm of an affine that describes an axial stack."""
    columns = affine[:3, :3]
    if not np.isfinite(affine).all():
        raise _fault(path, "an affine with NaN or infinity", "three finite axes")
    low, high = SPACING_MM
    spacing = np.abs(columns).max(axis=0)  # the length, before squares of it can overflow
    if (spacing < low / 2).any() or (spacing > high).any():
        sides = " x ".join(f"{side:.3g}" for side in spacing)
        raise _fault(path, f"voxels of {sides} mm", f"sides of {low:g} to {high:g} mm")
    spacing = np.sqrt((columns**2).sum(axis=0))
    if abs(np.linalg.det(columns / spacing)) < 1e-6:
        raise _fault(path, "an affine that is no grid in space", "three independent axes")
    degrees = float(np.degrees(obliquity(affine)).max())
    if degrees > MAX_OBLIQUITY_DEGREES:
        raise _fault(
            path,
            f"an oblique stack, {degrees:.0f} degrees off the axes of the body",
            f"axial slices within {MAX_OBLIQUITY_DEGREES:.0f} degrees",
            "Resample it to an axial grid first.",
        )
    dz, dy, dx = (float(spacing[axis]) for axis in Orientation.of(affine).permutation)
    if max(dx, dy) > MAX_IN_PLANE_ANISOTROPY * min(dx, dy):
        stack = "coronal" if dy > dx else "sagittal"
        raise _fault(
            path,
            f"a {stack} stack ({dx:.3g} x {dy:.3g} x {dz:.3g} mm along left, posterior, superior)",
            f"axial slices whose sides differ at most {MAX_IN_PLANE_ANISOTROPY:g} times",
            "Resample it to an axial grid first.",
        )
    return dz, dy, dx


def _header_class(start: bytes) -> type[nib.Nifti1Header]:
    """NIfTI-2 where the first number, the header's size, says 540 in either byte order."""
    is_second = start[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
    return nib.Nifti2Header if is_second else nib.Nifti1Header


def _fault(path: Path, found: str, expected: str, remedy: str = "") -> DataFaults:
    return DataFaults([Fault(case="", path=path, found=found, expected=expected, remedy=remedy)])


def _damaged(path: Path, error: Exception) -> DataFaults:
    remedy = "Download or copy the file again."
    return _fault(path, f"damaged or truncated gzip data ({error})", "a whole file", remedy)


def _truncated(path: Path, found: int, wanted: int) -> DataFaults:
    remedy = "Download or copy the file again."
    return _fault(path, f"a truncated file: {found} bytes", f"at least {wanted}", remedy)


def _unreadable(path: Path, error: OSError) -> DataFaults:
    return _fault(path, f"it cannot be read ({error.strerror or error})", "a readable NIfTI file")
