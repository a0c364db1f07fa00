"""An opened cache: its tables in memory, its images and masks memory-mapped.

Nothing in a file is used unchecked. Its checksum record (see `checksum`) says where everything lies
and is verified over the raw bytes; then `table_checks` refuses every index, size or name that is
not possible, so that a forged file can neither point outside itself nor ask for memory without
bound. Reading needs no HDF5 library. docs/cache-format.md describes the file.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from brats_cache.common.errors import BratsError, CacheCorruptError, CacheNotFoundError, printable
from brats_cache.discovery.namings import MODALITIES
from brats_cache.format.checksum import (
    BLANK_DIGEST,
    FORMAT_VERSION,
    ByteRange,
    ChecksumRecord,
    find_checksum_record,
    metadata_digest,
)
from brats_cache.format.schema import SLICE_DTYPE, TEXT_FIELDS, case_dtype
from brats_cache.format.table_checks import MAX_AXIS, check_tables
from brats_cache.imaging.grid import Grid
from brats_cache.imaging.labels import SCHEMES, Scheme
from brats_cache.imaging.preprocess import FITS, NORMALIZATIONS, Preparation

__all__ = ["LINK_MARK", "Cache", "check_exists", "open_cache"]

LINK_MARK = b"brats-cache-link "  # begins what `brats link` writes instead of a checksum record
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FIRST_BYTES = 1 << 16
_ERRORS = (
    OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, AttributeError,
    IndexError, UnicodeError, RecursionError, np.linalg.LinAlgError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Cache:
    """An open cache. Its rows are checked by `verify`, all else when it is opened.

    Attributes:
        path: The file.
        shape: (N, C, S, S) of the images.
        images_offset: First byte of the images.
        masks_offset: First byte of the masks.
        cases: Structured array, one record a case, see docs/cache-format.md.
        slices: Structured array, one record a row of `images` and `masks`.
        fingerprint: 32 hex digits that two caches share only where equal scans were prepared
            alike.
        set_fingerprint: 32 hex digits that the parts of one sharded build share.
        shard: Number from 1 of this part and number of parts; (1, 1) for a cache that is no part.
        writer: Program and version that made it.
        options: How it was built, the keys of `plan.describe_options`.
        data_dirs: The DATA arguments, which `source_name` is relative to.
    """

    path: Path
    shape: tuple[int, int, int, int]
    images_offset: int
    masks_offset: int
    cases: np.ndarray
    slices: np.ndarray
    fingerprint: str
    set_fingerprint: str
    shard: tuple[int, int]
    writer: str
    options: Mapping[str, Any]
    data_dirs: tuple[Path, ...]

    @property
    def images(self) -> np.ndarray:
        """(N, C, S, S) float16, read-only, memory-mapped."""
        self.check_length()
        return self._images

    @property
    def masks(self) -> np.ndarray:
        """(N, 1, S, S) uint8 canonical labels, read-only, memory-mapped."""
        self.check_length()
        return self._masks

    def check_length(self) -> None:
        """Checks with one system call that no row was cut off.

        Where a file was cut short, as by a copy onto it, the kernel ends a process that reads the
        missing part of a memory map (SIGBUS); no exception could be caught.

        Raises:
            CacheCorruptError: It does not.
        """
        rows, channels, height, width = self.shape
        pixels = rows * height * width
        needed = max(self.images_offset + 2 * channels * pixels, self.masks_offset + pixels)
        try:
            found = self.path.stat().st_size
        except FileNotFoundError:  # its bytes stay as long as they are mapped
            return
        if found < needed:
            raise _refusal(
                self.path,
                f"cut short or replaced while it was in use: {found:,} bytes, {needed:,} hold its "
                "rows",
                "Put it back; what was saved is kept.",
            )

    @cached_property
    def _images(self) -> np.ndarray:
        return np.memmap(self.path, "<f2", "r", self.images_offset, self.shape)

    @cached_property
    def _masks(self) -> np.ndarray:
        rows, _, height, width = self.shape
        return np.memmap(self.path, "u1", "r", self.masks_offset, (rows, 1, height, width))

    @property
    def preparation(self) -> Preparation:
        """How the pixels were made, enough to prepare another scan alike."""
        return _preparation(self.options)

    @property
    def case_ids(self) -> list[str]:
        """The ids of all cases, in the order of `cases`."""
        return [name.decode() for name in self.cases["id"].tolist()]

    def case_id(self, case: int) -> str:
        """The id of case number `case`."""
        name: bytes = self.cases["id"][case]
        return name.decode()

    def source_path(self, case: int, name: str) -> Path:
        """Where the scan of that `source_name` lies.

        A relative DATA is looked for in the working directory, then from the folder of the cache
        upwards, for the cache may have been built elsewhere.
        """
        path = self.data_dirs[self.cases["data_dir"][case]] / name
        if not path.is_absolute() and not path.exists():
            for folder in self.path.resolve().parents:
                if (folder / path).exists():
                    return folder / path
        return path

    def row_slice(self, case: int) -> slice:
        """The rows of case number `case` in `images`, `masks` and `slices`, ascending in z."""
        first = int(self.cases["first_row"][case])
        return slice(first, first + int(self.cases["rows"][case]))

    def row_byte_ranges(self, case: int) -> tuple[ByteRange, ByteRange]:
        """The bytes of the image rows and of the mask rows of case number `case` in the file."""
        rows = self.row_slice(case)
        num_rows = rows.stop - rows.start
        _, channels, height, width = self.shape
        mask_bytes = height * width
        image_bytes = channels * mask_bytes * 2
        return (
            ByteRange(
                offset=self.images_offset + rows.start * image_bytes,
                num_bytes=num_rows * image_bytes,
            ),
            ByteRange(
                offset=self.masks_offset + rows.start * mask_bytes, num_bytes=num_rows * mask_bytes
            ),
        )

    def grid(self, case: int) -> Grid:
        """The grid of the scan of case number `case`."""
        record = self.cases[case]
        x, y, z = (int(n) for n in record["native_shape"])
        return Grid(shape=(x, y, z), affine=record["affine"])

    def depth(self, case: int) -> int:
        """Number of axial slices of the scan of case number `case`."""
        return self.grid(case).canonical_shape[0]

    def scheme(self, case: int) -> Scheme:
        """The label scheme of the source mask of case number `case`."""
        return SCHEMES[self.cases["label_scheme"][case].decode()]


def check_exists(path: Path) -> None:
    """Raises `CacheNotFoundError` where there is no such file; `open_cache` tells other faults."""
    try:
        path.stat()
    except FileNotFoundError:
        raise _not_found(path) from None
    except OSError:
        return


def _not_found(path: Path) -> CacheNotFoundError:
    return CacheNotFoundError(
        f"{printable(path)}: no such file. Make it with brats build-cache, or name another."
    )


def open_cache(path: str | Path) -> Cache:
    """Opens a finished cache and checks all of it but the rows.

    Args:
        path: The file.

    Returns:
        The cache, its images and masks not read yet.

    Raises:
        CacheNotFoundError: There is no such file.
        CacheCorruptError: No HDF5, no cache, a link over caches, another format version,
            unfinished, truncated, damaged, or made to mislead.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise _refusal(path, "no regular file")
        with open(path, "rb") as raw:
            return _read(path, raw, _check_bytes(path, raw))
    except BratsError:
        raise
    except FileNotFoundError:
        raise _not_found(path) from None
    except _ERRORS as error:
        reason = str(error) or type(error).__name__
        raise _refusal(path, f"not a readable cache ({reason})") from error


def _check_bytes(path: Path, raw: BinaryIO) -> ChecksumRecord:
    """The record, where the file's bytes agree with it."""
    length = os.fstat(raw.fileno()).st_size
    start = raw.read(_FIRST_BYTES)
    if not start.startswith(_SIGNATURE):
        what = "empty" if not start else "no HDF5 file"
        raise _refusal(path, what, "Expected a cache made by brats build-cache.")
    record = find_checksum_record(start)
    if record is None:
        raise _foreign(path, start)
    if record.version != FORMAT_VERSION:
        newer = record.version > FORMAT_VERSION
        raise _refusal(
            path,
            f"format version {record.version} is {'newer' if newer else 'older'} than this "
            f"program's {FORMAT_VERSION}",
            "Update brats." if newer else "Build it again with brats build-cache.",
        )
    if length != record.file_bytes:
        what = "truncated" if length < record.file_bytes else "longer than it was made"
        raise _refusal(path, f"{what}: {length:,} bytes of {record.file_bytes:,}")
    if record.digest == BLANK_DIGEST:
        raise _refusal(path, "unfinished", "The brats build-cache that began it goes on with it.")
    if metadata_digest(raw.fileno(), record) != record.digest:
        raise _refusal(path, "damaged: its tables or attributes do not match their checksum")
    return record


def _foreign(path: Path, start: bytes) -> CacheCorruptError:
    """The error for an HDF5 file that is no cache, which may be a link over caches."""
    offset = start.find(LINK_MARK)
    if offset < 0:
        return _refusal(
            path, "an HDF5 file, but no cache", "Expected one made by brats build-cache."
        )
    # In a link the mark is followed by the parts' names, as a JSON list of text.
    text = start[offset + len(LINK_MARK) :].decode(errors="replace")
    try:
        parts, _ = json.JSONDecoder().raw_decode(text)
        names = " ".join(map(str, parts))
    except (ValueError, TypeError, RecursionError):
        names = "the caches it was made of"
    return _refusal(
        path, "a link over caches, for h5py alone", f"Name the caches themselves: {names}"
    )


def _refusal(path: Path, what: str, remedy: str = "Copy or build it again.") -> CacheCorruptError:
    return CacheCorruptError(f"{printable(path)}: {printable(what)}. {printable(remedy)}")


def _read(path: Path, raw: BinaryIO, record: ChecksumRecord) -> Cache:
    content = json.loads(_read_range(raw, record.byte_ranges["about"]))
    preparation = _preparation(content["options"])
    data_dirs = [str(name) for name in content["data_dirs"]]
    shard = int(content["shard"][0]), int(content["shard"][1])
    kinds = case_dtype(
        {name: int(content["text_bytes"][name]) for name in TEXT_FIELDS},
        len(preparation.modalities),
    )
    slices = np.frombuffer(_read_range(raw, record.byte_ranges["slices"]), SLICE_DTYPE)
    cases = np.frombuffer(_read_range(raw, record.byte_ranges["cases"]), kinds)
    if not len(slices):
        raise ValueError("it holds no row")
    shape = (len(slices), len(preparation.modalities), preparation.size, preparation.size)
    for name, wanted in {
        "images": math.prod(shape) * 2,
        "masks": math.prod(shape) // shape[1],
    }.items():
        if record.byte_ranges[name].num_bytes != wanted:
            raise ValueError(f"{record.byte_ranges[name].num_bytes:,} bytes of {name} for {shape}")
    check_tables(cases, slices, num_data_dirs=len(data_dirs))
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"it calls itself part {shard[0]} of {shard[1]}")
    prints = [content["fingerprint"], content["set_fingerprint"]]
    if not all(re.fullmatch("[0-9a-f]{32}", text) for text in prints):
        raise ValueError(f"the fingerprints {prints}")
    return Cache(
        path=path,
        shape=shape,
        images_offset=record.byte_ranges["images"].offset,
        masks_offset=record.byte_ranges["masks"].offset,
        cases=cases,
        slices=slices,
        fingerprint=prints[0],
        set_fingerprint=prints[1],
        shard=shard,
        writer=str(content["writer"]),
        options=content["options"],
        data_dirs=tuple(map(Path, data_dirs)),
    )


def _read_range(raw: BinaryIO, part: ByteRange) -> bytes:
    """The bytes of `part`, at most `MAX_METADATA_BYTES`: `metadata_digest` refuses more."""
    raw.seek(part.offset)
    return raw.read(part.num_bytes)


def _preparation(options: Mapping[str, Any]) -> Preparation:
    names = {field.name for field in fields(Preparation)}
    known = {name: value for name, value in options.items() if name in names}
    preparation = Preparation(**{**known, "modalities": tuple(known["modalities"])})
    modalities, size = preparation.modalities, preparation.size
    if not modalities or not set(modalities) <= set(MODALITIES):
        raise ValueError(f"modalities {modalities}")
    if type(size) is not int or not 0 < size < MAX_AXIS:
        raise ValueError(f"slices of size {size}")
    if preparation.fit not in FITS or preparation.normalize not in NORMALIZATIONS:
        raise ValueError(f"slices made by {preparation.fit} and {preparation.normalize}")
    return preparation
