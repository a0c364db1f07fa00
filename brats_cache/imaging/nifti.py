"""The voxels of a NIfTI file, read once and whole, as canonical arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xxhash

from brats_cache.common.errors import file_fault
from brats_cache.imaging.gzip import CHUNK_BYTES, GZIP_ERRORS, inflate, is_gzip
from brats_cache.imaging.nifti_faults import damaged_file, truncated_file, unreadable_file
from brats_cache.imaging.nifti_header import Header

__all__ = ["Contents", "read_contents", "read_labels", "read_volume"]

LABEL_TOLERANCE = 1e-3
_NUM_SHOWN = 6  # different wrong values that are collected; one fewer is quoted


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """A file read once.

    Attributes:
        header: Its header.
        num_bytes: Its size as it lies on the disk.
        checksum: xxh3_64 of it as it lies on the disk.
        data: The data block, inflated.
    """

    header: Header
    num_bytes: int
    checksum: int
    data: memoryview


def read_contents(header: Header) -> Contents:
    """Reads the whole file of a header, once, and inflates it where it is gzipped.

    Args:
        header: Of `read_header`.

    Raises:
        DataFaults: The file is truncated, damaged or holds less than its header says.
    """
    path = header.path
    wanted = header.offset + header.num_data_bytes
    try:
        raw = path.read_bytes()
        data = memoryview(inflate(raw, wanted) if is_gzip(raw) else raw)
    except OSError as error:
        raise unreadable_file(path, error) from None
    except GZIP_ERRORS as error:
        raise damaged_file(path, error) from None
    if len(data) < wanted:
        raise truncated_file(path, len(data), wanted)
    return Contents(
        header=header,
        num_bytes=len(raw),
        checksum=xxhash.xxh3_64_intdigest(raw),
        data=data[header.offset : wanted],
    )


def read_volume(contents: Contents, channel: int | None = None) -> np.ndarray:
    """Returns the canonical volume of a file, or of one channel of a 4-D file.

    Args:
        contents: The file.
        channel: Index along the fourth axis; None for a file of one volume.

    Returns:
        (Z, Y, X): unscaled 8- and 16-bit integers in their own type, everything else as float32,
        with scl_slope and scl_inter applied in float64 before.

    Raises:
        DataFaults: A channel is needed and not given, or given and not there.
    """
    header = contents.header
    if channel is None and header.num_channels != 1:
        found = f"4-D data with {header.num_channels} volumes"
        raise file_fault(header.path, found, "one volume a file (X x Y x Z)")
    index = channel or 0
    if index >= header.num_channels:
        found = f"{header.num_channels} volumes along the fourth axis"
        raise file_fault(
            header.path, found, f"at least {index + 1}, as dataset.json or the manifest says"
        )
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
    """Returns the values of a segmentation file, whatever its label scheme.

    Args:
        contents: The file.
        channel: Index along the fourth axis; None for a file of one volume.

    Returns:
        (Z, Y, X) uint8 in canonical orientation; values within 1e-3 of an integer count as it.

    Raises:
        DataFaults: There are other values, which are quoted, or values outside 0 to 255.
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
        raise file_fault(contents.header.path, found, "whole numbers from 0 to 255")
    return labels


def _scaled(flat: np.ndarray, slope: float, inter: float) -> np.ndarray:
    """`flat * slope + inter` in float64, piece by piece, as float32."""
    scaled = np.empty(flat.shape, np.float32)
    for start in range(0, len(flat), CHUNK_BYTES):
        piece = flat[start : start + CHUNK_BYTES].astype(np.float64)
        scaled[start : start + CHUNK_BYTES] = piece * slope + inter
    return scaled
