"""Creates a cache file through the HDF5 library and completes it with `pwrite`.

The layout is fixed when the file is created. Workers then write rows at their byte offsets while no
HDF5 handle is open, because a process killed with an open handle can leave a file that does not
open any more.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t

from brats_cache.build.plan import IMAGE_BYTES, Plan
from brats_cache.build.tables import about, cases_table, plain_attributes, slices_table
from brats_cache.common.errors import BratsError, printable
from brats_cache.common.files import open_regular_file
from brats_cache.format.checksum import (
    MAX_METADATA_BYTES,
    ByteRange,
    ChecksumRecord,
    find_checksum_record,
    metadata_digest,
)

__all__ = ["Layout", "create", "finish", "read_layout", "write_all"]

ALIGNMENT = 4096
_FIRST_BYTES = 1 << 17  # where both attributes lie
_OTHER_METADATA = 1 << 20  # bytes, more than everything but the rows and the tables takes
_MAX_ATTRIBUTE = 60_000  # bytes; the library ends at 64 KiB


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Byte offsets and sizes in a file under construction.

    Attributes:
        images_offset: Offset of the images.
        masks_offset: Offset of the masks.
        cases_offset: Offset of the table of cases.
        image_row_bytes: Size of one image row, C * S * S float16.
        mask_row_bytes: Size of one mask row, S * S uint8.
        file_bytes: Size of the file.
    """

    images_offset: int
    masks_offset: int
    cases_offset: int
    image_row_bytes: int
    mask_row_bytes: int
    file_bytes: int

    def rows(self, first: int, num: int) -> tuple[ByteRange, ByteRange]:
        """Returns the byte ranges of consecutive rows.

        Args:
            first: First row of the file.
            num: Number of rows.

        Returns:
            The byte range of their images and that of their masks.
        """
        return (
            ByteRange(
                offset=self.images_offset + first * self.image_row_bytes,
                num_bytes=num * self.image_row_bytes,
            ),
            ByteRange(
                offset=self.masks_offset + first * self.mask_row_bytes,
                num_bytes=num * self.mask_row_bytes,
            ),
        )


def create(path: Path, plan: Plan) -> Layout:
    """Creates the file of a plan: everything except the rows and the checksums.

    Its disk space is reserved and the file synced. Equal plans give equal bytes.

    Args:
        path: The file under construction; an existing one is replaced.
        plan: What to write.

    Returns:
        The byte layout of the file.

    Raises:
        BratsError: The disk has too little space, the names of the DATA arguments are too long, or
            the tables too large.
    """
    try:
        path.unlink(missing_ok=True)
        byte_ranges = _lay_out(path, plan)
        file_bytes = path.stat().st_size
        with open(path, "r+b") as file:
            start = file.read(_FIRST_BYTES)
            blank = find_checksum_record(start)
            assert blank is not None, "the first attribute lies in the first bytes"
            text = about(plan).encode()
            byte_ranges["about"] = ByteRange(offset=start.index(text), num_bytes=len(text))
            record = replace(blank, file_bytes=file_bytes, byte_ranges=byte_ranges)
            os.pwrite(file.fileno(), str(record).encode(), record.offset)
            # Early allocation only lengthens the file; a disk that is too small must say so now.
            os.posix_fallocate(file.fileno(), 0, file_bytes)
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise BratsError(
            f"{printable(path)}: cannot reserve {plan.num_bytes:,} bytes "
            f"({error.strerror or error}). Free some disk, choose another --out, or fewer --slices."
        ) from error
    return _layout(plan, byte_ranges, file_bytes)


def read_layout(path: Path, plan: Plan) -> Layout | None:
    """Reads the layout of a file that `create` made for a plan.

    Returns:
        None where there is no such file, or it has another length than it was made with.
    """
    try:
        with open_regular_file(path) as file:
            record = find_checksum_record(file.read(_FIRST_BYTES))
            num_bytes = os.fstat(file.fileno()).st_size
    except OSError:
        return None
    if record is None or record.file_bytes != num_bytes:
        return None
    return _layout(plan, record.byte_ranges, num_bytes)


def finish(path: Path, plan: Plan, layout: Layout, checksums: np.ndarray) -> None:
    """Writes the checksums into a file whose rows are complete, and syncs it. Can be repeated.

    Args:
        path: The file under construction.
        plan: Its plan.
        layout: Its byte layout.
        checksums: (num cases,) uint64, the checksum of the rows of each case.

    Raises:
        BratsError: The file cannot be written.
    """
    cases = cases_table(plan)
    cases["checksum"] = checksums
    try:
        with open(path, "r+b") as file:
            write_all(file.fileno(), cases, layout.cases_offset)
            record = find_checksum_record(file.read(_FIRST_BYTES))
            assert record is not None, "a file made here has its checksum record in its first bytes"
            digest = metadata_digest(file.fileno(), record)
            os.pwrite(file.fileno(), digest.encode(), record.digest_offset)
            os.fsync(file.fileno())
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be written ({error.strerror}).") from error


def write_all(descriptor: int, array: np.ndarray, offset: int) -> None:
    """Writes a whole array to a file with as many `pwrite` calls as needed (2 GiB at most each).

    Args:
        descriptor: The file, open for writing.
        array: C-contiguous, any shape and dtype.
        offset: Offset in the file in bytes.

    Raises:
        OSError: The write fails.
    """
    remaining = array.reshape(-1).view(np.uint8).data
    while remaining:
        written = os.pwrite(descriptor, remaining, offset)
        remaining, offset = remaining[written:], offset + written


def _layout(plan: Plan, byte_ranges: Mapping[str, ByteRange], file_bytes: int) -> Layout:
    _, channels, size, _ = plan.image_shape
    return Layout(
        images_offset=byte_ranges["images"].offset,
        masks_offset=byte_ranges["masks"].offset,
        cases_offset=byte_ranges["cases"].offset,
        image_row_bytes=channels * size * size * IMAGE_BYTES,
        mask_row_bytes=size * size,
        file_bytes=file_bytes,
    )


def _lay_out(path: Path, plan: Plan) -> dict[str, ByteRange]:
    """Creates the file through HDF5; returns the byte range of each dataset."""
    rows, _, size, _ = plan.image_shape
    text = about(plan).encode()
    if len(text) > _MAX_ATTRIBUTE:
        raise BratsError(
            f"{printable(path)}: the names of {len(plan.data_dirs)} DATA arguments are too long to "
            "be kept. Name a folder that holds them all instead."
        )
    cases, slices = cases_table(plan), slices_table(plan)
    if cases.nbytes + slices.nbytes > MAX_METADATA_BYTES - _OTHER_METADATA:
        raise BratsError(
            f"{printable(path)}: tables of {len(cases):,} cases and {rows:,} rows take more than "
            f"the {MAX_METADATA_BYTES >> 20} MiB that a cache may have. Build it in parts "
            "(--shards N, or --shard I/N), or choose fewer --slices."
        )
    with _new_file(path, alignment_threshold=rows * size * size) as file:
        # The checksum record comes first, so that it lies in the file's first bytes.
        file.attrs.create("seal", np.bytes_(str(ChecksumRecord.blank()).encode()))
        file.attrs.create("about", np.bytes_(text))
        for name, value in plain_attributes(plan).items():
            file.attrs.create(name, value)
        return {
            "cases": _put_table(file, "cases", cases),
            "images": _reserve(file, "images", np.dtype("<f2"), plan.image_shape),
            "masks": _reserve(file, "masks", np.dtype("u1"), (rows, 1, size, size)),
            "slices": _put_table(file, "slices", slices),
        }


def _new_file(path: Path, alignment_threshold: int) -> h5py.File:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_V18)
    access.set_alignment(alignment_threshold, ALIGNMENT)
    return h5py.File(h5f.create(os.fsencode(path), h5f.ACC_EXCL, fapl=access))


def _reserve(file: h5py.File, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> ByteRange:
    """Creates a contiguous dataset, allocated but not filled; returns its byte range."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_layout(h5d.CONTIGUOUS)
    creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    kind = h5t.py_create(dtype, logical=True)
    dataset = h5d.create(file.id, name.encode(), kind, h5s.create_simple(shape), creation)
    offset = dataset.get_offset()
    assert offset is not None, "early allocation gives a contiguous dataset its offset at once"
    return ByteRange(offset=int(offset), num_bytes=math.prod(shape) * dtype.itemsize)


def _put_table(file: h5py.File, name: str, table: np.ndarray) -> ByteRange:
    byte_range = _reserve(file, name, table.dtype, table.shape)
    file[name][...] = table
    return byte_range
