"""Making a cache file: created once through the HDF5 library, everything after that is `pwrite`.

The layout is fixed at creation, so workers put rows straight into their place, and no handle of the
library is open while they do: a process killed with one would leave a file that does not open.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t

from .errors import BratsError, printable
from .plan import Plan
from .records import attributes, cases_table, slices_table, text
from .seal import BLANK, Range, Seal, find_seal, outside_digest

__all__ = ["Layout", "create", "finish", "write_all"]

ALIGNMENT = 4096
_FIRST_BYTES = 1 << 16  # where the seal, the first attribute, lies


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where things lie in a file under construction, in bytes."""

    images_offset: int
    masks_offset: int
    cases_offset: int
    image_row_bytes: int
    mask_row_bytes: int
    file_bytes: int

    def rows(self, first: int, num: int) -> tuple[Range, Range]:
        """Where the images and the masks of `num` rows from `first` on lie."""
        return (
            Range(
                offset=self.images_offset + first * self.image_row_bytes,
                num_bytes=num * self.image_row_bytes,
            ),
            Range(
                offset=self.masks_offset + first * self.mask_row_bytes,
                num_bytes=num * self.mask_row_bytes,
            ),
        )


def create(path: Path, plan: Plan) -> Layout:
    """Makes the file of `plan` with everything but the rows and the checksums, its space reserved
    and itself synced.

    Raises `BratsError` where the disk cannot hold it. Equal plans give equal bytes.
    """
    rows, channels, size, _ = plan.image_shape
    try:
        path.unlink(missing_ok=True)
        offsets = _lay_out(path, plan)
        layout = Layout(
            **offsets,
            image_row_bytes=channels * size * size * 2,
            mask_row_bytes=size * size,
            file_bytes=path.stat().st_size,
        )
        images, masks = layout.rows(0, rows)
        seal = Seal(digest=BLANK, file_bytes=layout.file_bytes, images=images, masks=masks)
        with open(path, "r+b") as file:
            os.pwrite(file.fileno(), str(seal).encode(), _seal_of(path).place)
            # Early allocation only lengthens the file; a disk that is too small must say so now.
            os.posix_fallocate(file.fileno(), 0, layout.file_bytes)
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise BratsError(
            f"{printable(path)}: cannot reserve {plan.num_bytes:,} bytes "
            f"({error.strerror or error}). Free some disk, choose another --out, or fewer --slices."
        ) from error
    return layout


def finish(path: Path, plan: Plan, layout: Layout, checksums: np.ndarray) -> None:
    """Puts the checksums of the cases' rows, (cases,) uint64, and the seal into a file whose rows
    are written, and syncs it. May be repeated."""
    cases = cases_table(plan)
    cases["checksum"] = checksums
    try:
        with open(path, "r+b") as file:
            write_all(file.fileno(), cases, layout.cases_offset)
            seal = _seal_of(path)
            digest = outside_digest(file.fileno(), seal)
            os.pwrite(file.fileno(), digest.encode(), seal.digest_place)
            os.fsync(file.fileno())
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be written ({error.strerror}).") from error


def write_all(descriptor: int, array: np.ndarray, offset: int) -> None:
    """All of a contiguous `array`, however many calls it takes: one moves at most 2 GiB."""
    remaining = array.reshape(-1).view(np.uint8).data
    while remaining:
        written = os.pwrite(descriptor, remaining, offset)
        remaining, offset = remaining[written:], offset + written


def _lay_out(path: Path, plan: Plan) -> dict[str, int]:
    """Creates the file through the library; the offsets of what is written without it."""
    rows, _, size, _ = plan.image_shape
    nowhere = Range(offset=0, num_bytes=0)
    blank = Seal(digest=BLANK, file_bytes=0, images=nowhere, masks=nowhere)
    with _new_file(path, alignment_threshold=rows * size * size) as file:
        # The seal comes first, so that it lies in the file's first bytes.
        for name, value in {"seal": text(str(blank)), **attributes(plan)}.items():
            file.attrs.create(name, value)
        offsets = {
            "cases_offset": _put_table(file, "cases", cases_table(plan)),
            "images_offset": _reserve(file, "images", np.dtype("<f2"), plan.image_shape),
            "masks_offset": _reserve(file, "masks", np.dtype("u1"), (rows, 1, size, size)),
        }
        _put_table(file, "slices", slices_table(plan))
    return offsets


def _seal_of(path: Path) -> Seal:
    with open(path, "rb") as file:
        seal = find_seal(file.read(_FIRST_BYTES))
    assert seal is not None, "a file made here is sealed in its first bytes"
    return seal


def _new_file(path: Path, alignment_threshold: int) -> h5py.File:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(h5f.LIBVER_EARLIEST, h5f.LIBVER_V18)
    access.set_alignment(alignment_threshold, ALIGNMENT)
    return h5py.File(h5f.create(os.fsencode(path), h5f.ACC_EXCL, fapl=access))


def _reserve(file: h5py.File, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """A contiguous dataset with its bytes placed and left unwritten; returns its offset."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_layout(h5d.CONTIGUOUS)
    creation.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5d.FILL_TIME_NEVER)
    creation.set_obj_track_times(False)
    kind = h5t.py_create(dtype, logical=True)
    dataset = h5d.create(file.id, name.encode(), kind, h5s.create_simple(shape), creation)
    offset = dataset.get_offset()
    assert offset is not None, "early allocation places a contiguous dataset at once"
    return int(offset)


def _put_table(file: h5py.File, name: str, table: np.ndarray) -> int:
    offset = _reserve(file, name, table.dtype, table.shape)
    file[name][...] = table
    return offset
