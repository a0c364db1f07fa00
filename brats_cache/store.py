"""The one module that knows the cache file: create it, finish it, open it, map it.

The file is HDF5 that any tool opens. Images and masks are contiguous datasets whose byte offsets
are fixed at creation, so writers put rows straight into place and readers map them, both without
the library. No handle of the library outlives a function of this module. Layout, fields and
checksums are described in docs/cache-format.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash
from h5py import h5d, h5f, h5p, h5s, h5t

from . import __version__
from .errors import BratsError, printable
from .labels import SCHEMES, Scheme
from .nifti import Orientation
from .plan import NUM_LABELS, Plan, PlannedCase, describe_options
from .preprocess import Preparation

__all__ = [
    "FORMAT_VERSION",
    "Cache",
    "Layout",
    "create",
    "finish",
    "open_cache",
    "rows_checksum",
]

FORMAT = "brats-cache"
FORMAT_VERSION = 1
ALIGNMENT = 4096
_UNKNOWN = "checksum not yet known; " + "?" * 8  # holds the place of 32 hex digits
SLICE_DTYPE = np.dtype(
    [("case", "<i4"), ("z", "<i4"), ("brain_pixels", "<i4"), ("label_pixels", "<i4", NUM_LABELS)]
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where things lie in a file under construction, in bytes."""

    images_offset: int
    masks_offset: int
    cases_offset: int
    checksum_offset: int
    image_row_bytes: int
    mask_row_bytes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Cache:
    """An opened cache: its tables in memory, its images and masks mapped when first asked for.

    cases        structured array, a row a case, see docs/cache-format.md
    slices       structured array, a row a row
    fingerprint  32 hex digits that two caches share only where equal scans were prepared alike
    options      how it was built, the keys of `plan.describe_options`
    data_dirs    the DATA arguments, which `source_name` is relative to
    """

    path: Path
    shape: tuple[int, int, int, int]
    images_offset: int
    masks_offset: int
    cases: np.ndarray
    slices: np.ndarray
    fingerprint: str
    writer: str
    options: Mapping[str, Any]
    data_dirs: tuple[Path, ...]

    @cached_property
    def images(self) -> np.ndarray:
        """(N, C, S, S) float16, read-only, mapped."""
        return np.memmap(self.path, "<f2", "r", self.images_offset, self.shape)

    @cached_property
    def masks(self) -> np.ndarray:
        """(N, 1, S, S) uint8 canonical labels, read-only, mapped."""
        rows, _, height, width = self.shape
        return np.memmap(self.path, "u1", "r", self.masks_offset, (rows, 1, height, width))

    @property
    def preparation(self) -> Preparation:
        """How the pixels were made, enough to prepare another scan alike."""
        names = {field.name for field in fields(Preparation)}
        known = {name: value for name, value in self.options.items() if name in names}
        return Preparation(**{**known, "modalities": tuple(known["modalities"])})

    def depth(self, case: int) -> int:
        """Number of axial slices of case number `case` in its source."""
        record = self.cases[case]
        return int(record["native_shape"][Orientation.of(record["affine"]).permutation[0]])

    def scheme(self, case: int) -> Scheme:
        """The label scheme of the sources of case number `case`."""
        return SCHEMES[self.cases["label_scheme"][case].decode()]


def create(path: Path, plan: Plan) -> Layout:
    """Makes the file of `plan` with everything but the rows and the checksums, its space reserved.

    Raises `BratsError` where the disk cannot hold it. Equal plans give equal bytes.
    """
    cases, slices = _cases_table(plan), _slices_table(plan)
    rows, channels, size, _ = plan.image_shape
    try:
        with _new_file(path, alignment_threshold=rows * size * size) as file:
            for name, value in {**_attributes(plan), "checksum": _text(_UNKNOWN)}.items():
                file.attrs.create(name, value)
            cases_offset = _put_table(file, "cases", cases)
            images_offset = _reserve(file, "images", np.dtype("<f2"), plan.image_shape)
            masks_offset = _reserve(file, "masks", np.dtype("u1"), (rows, 1, size, size))
            _put_table(file, "slices", slices)
        with open(path, "r+b") as raw:
            # Early allocation only lengthens the file; a disk that is too small must say so now.
            os.posix_fallocate(raw.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise BratsError(
            f"{path}: cannot reserve {plan.num_bytes:,} bytes ({error.strerror or error}). "
            "Free some disk, choose another --out, or fewer --slices."
        ) from error
    return Layout(
        images_offset=images_offset,
        masks_offset=masks_offset,
        cases_offset=cases_offset,
        checksum_offset=_checksum_place(path, num_bytes=images_offset),
        image_row_bytes=channels * size * size * 2,
        mask_row_bytes=size * size,
    )


def finish(path: Path, plan: Plan, layout: Layout, rows_checksums: np.ndarray) -> None:
    """Puts the checksums, (cases,) uint64, into a file whose rows are written, and syncs it. May be
    repeated."""
    cases = _cases_table(plan)
    cases["checksum"] = rows_checksums
    total = _tables_checksum(cases, _slices_table(plan), _attributes(plan))
    with open(path, "r+b") as file:
        os.pwrite(file.fileno(), cases.tobytes(), layout.cases_offset)
        os.pwrite(file.fileno(), total.encode(), layout.checksum_offset)
        os.fsync(file.fileno())


def open_cache(path: Path) -> Cache:
    """Opens a finished cache, checking that it is one: format, version, layout, length, tables.

    Raises `BratsError` saying what it is instead. Rows are not read; `verify` does that.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _read(path, file)
    except FileNotFoundError:
        raise BratsError(f"{path}: no such file. Make it with brats build-cache.") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        reason = printable(error) or type(error).__name__
        raise BratsError(
            f"{path}: not a readable cache ({reason}). Build it again with brats build-cache."
        ) from error


def rows_checksum(images: Any, masks: Any) -> int:
    """xxh3_64 of the bytes of a case's image rows, then of its mask rows."""
    digest = xxhash.xxh3_64(images)
    digest.update(masks)
    return digest.intdigest()


def _read(path: Path, file: h5py.File) -> Cache:
    attributes = dict(file.attrs.items())
    if attributes.get("format") != FORMAT.encode():
        raise BratsError(
            f"{path}: an HDF5 file, but no cache of this program. Expected one made by "
            "brats build-cache."
        )
    version = int(attributes["format_version"])
    if version != FORMAT_VERSION:
        age = "newer" if version > FORMAT_VERSION else "older"
        remedy = "Update brats" if version > FORMAT_VERSION else "Build it again"
        raise BratsError(
            f"{path}: format version {version} is {age} than this program's {FORMAT_VERSION} "
            f"(written by {printable(attributes['writer'].decode())}). {remedy}."
        )
    cases, slices = file["cases"][:], file["slices"][:]
    if _tables_checksum(cases, slices, attributes) != attributes["checksum"].decode():
        raise BratsError(
            f"{path}: the tables do not match their checksum; the file is damaged or unfinished. "
            "Build it again."
        )
    images, masks = file["images"], file["masks"]
    rows, channels, size, _ = images.shape
    _check_place(path, images, "<f2", (len(slices), channels, size, size))
    _check_place(path, masks, "u1", (rows, 1, size, size))
    return Cache(
        path=path,
        shape=images.shape,
        images_offset=images.id.get_offset() or 0,
        masks_offset=masks.id.get_offset() or 0,
        cases=cases,
        slices=slices,
        fingerprint=attributes["fingerprint"].decode(),
        writer=attributes["writer"].decode(),
        options=json.loads(attributes["options"]),
        data_dirs=tuple(Path(folder) for folder in json.loads(attributes["data_dirs"])),
    )


def _check_place(path: Path, dataset: h5py.Dataset, dtype: str, shape: tuple[int, ...]) -> None:
    """A map trusts offset, type and length; nothing of that may come unchecked from the file."""
    name = dataset.name
    offset = dataset.id.get_offset()
    if dataset.dtype != np.dtype(dtype) or dataset.shape != shape:
        raise BratsError(f"{path}: {name} is {dataset.dtype} {dataset.shape}, not {dtype} {shape}.")
    if dataset.chunks is not None or offset is None:
        raise BratsError(f"{path}: {name} is not contiguous, so it cannot be mapped.")
    end, length = offset + int(np.prod(shape)) * dataset.dtype.itemsize, path.stat().st_size
    if end > length:
        raise BratsError(
            f"{path}: truncated: {length:,} bytes, but {name} ends at byte {end:,}. Build or copy "
            "it again."
        )


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


def _checksum_place(path: Path, num_bytes: int) -> int:
    """Where the attribute `checksum` keeps its 32 digits: it was made before the datasets, so it
    lies in front of them."""
    with open(path, "rb") as file:
        head = file.read(num_bytes)
    assert head.count(_UNKNOWN.encode()) == 1
    return head.index(_UNKNOWN.encode())


def _attributes(plan: Plan) -> dict[str, np.generic | np.ndarray]:
    """Text is of fixed length: strings of variable length make equal files differ."""
    return {
        "format": _text(FORMAT),
        "format_version": np.int64(FORMAT_VERSION),
        "writer": _text(f"brats-unet {__version__}"),
        "fingerprint": _text(plan.fingerprint),
        "modalities": np.array(plan.options.preparation.modalities, "S"),
        "options": _text(json.dumps(describe_options(plan.options), sort_keys=True)),
        "data_dirs": _text(json.dumps([str(folder) for folder in plan.data_dirs])),
    }


def _text(text: str) -> np.bytes_:
    return np.bytes_(text.encode())


def _tables_checksum(cases: np.ndarray, slices: np.ndarray, attributes: Mapping[str, Any]) -> str:
    """xxh3_128 over both tables and every attribute but the checksum itself, 32 hex digits."""
    digest = xxhash.xxh3_128(cases.tobytes())
    digest.update(slices.tobytes())
    for name in sorted(set(attributes) - {"checksum"}):
        value = np.asarray(attributes[name])
        digest.update(f"{name} {value.shape} {value.dtype.str} ".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _slices_table(plan: Plan) -> np.ndarray:
    table = np.zeros(plan.num_rows, SLICE_DTYPE)
    for index, case in enumerate(plan.cases):
        part = table[case.first_row : case.first_row + len(case.slices)]
        part["case"] = index
        part["z"] = case.slices
        part["brain_pixels"] = case.survey.brain_pixels[case.slices]
        part["label_pixels"] = case.canonical_pixels[:, case.slices].T
    return table


def _cases_table(plan: Plan) -> np.ndarray:
    """The table with its checksums still zero."""
    rows = [_case_record(case, plan) for case in plan.cases]
    num_modalities = len(plan.options.preparation.modalities)
    lengths = {
        name: max(1, *(len(row[name]) for row in rows)) if rows else 1
        for name in ("id", "patient", "label_scheme", "survival")
    }
    name_length = max(1, *(len(name) for row in rows for name in row["source_name"]))
    table = np.zeros(len(rows), _case_dtype(lengths, name_length, num_modalities))
    for record, row in zip(table, rows, strict=True):
        for name, value in row.items():
            record[name] = value
    return table


def _case_record(case: PlannedCase, plan: Plan) -> dict[str, Any]:
    survey = case.survey
    source_voxels = np.zeros(NUM_LABELS, np.int64)
    for value, pixels in zip(survey.label_values, survey.label_pixels, strict=True):
        source_voxels[value] = pixels.sum()
    source_voxels[0] = np.prod(survey.shape) - source_voxels.sum() if survey.case.mask else 0
    num_absent = len(survey.normalizations) + 1 - len(survey.sources)  # the mask's, where none is
    return {
        "id": survey.case.id.encode(),
        "patient": survey.case.patient.encode(),
        "split": case.split.encode(),
        "fold": case.fold,
        "grade": survey.case.grade.encode(),
        "age": np.nan if survey.case.age is None else survey.case.age,
        "survival": survey.case.survival.encode(),
        "has_mask": survey.case.mask is not None,
        "first_row": case.first_row,
        "rows": len(case.slices),
        "native_shape": survey.shape,
        "affine": survey.affine,
        "orientation": survey.codes.encode(),
        "label_scheme": case.scheme.name.encode(),
        "native_voxel_counts": source_voxels,
        "center": [normalization.center for normalization in survey.normalizations],
        "scale": [normalization.scale for normalization in survey.normalizations],
        "data_dir": plan.data_dirs.index(survey.case.data_dir),
        "source_name": [source.name.encode() for source in survey.sources] + [b""] * num_absent,
        "source_bytes": [source.num_bytes for source in survey.sources] + [0] * num_absent,
        "source_checksum": [source.checksum for source in survey.sources] + [0] * num_absent,
    }


def _case_dtype(lengths: Mapping[str, int], name_length: int, num_modalities: int) -> np.dtype:
    num_sources = num_modalities + 1
    return np.dtype(
        [
            ("id", f"S{lengths['id']}"),
            ("patient", f"S{lengths['patient']}"),
            ("split", "S5"),
            ("fold", "<i4"),
            ("grade", "S3"),
            ("age", "<f4"),
            ("survival", f"S{lengths['survival']}"),
            ("has_mask", "u1"),
            ("first_row", "<i8"),
            ("rows", "<i8"),
            ("native_shape", "<i4", 3),
            ("affine", "<f8", (4, 4)),
            ("orientation", "S3"),
            ("label_scheme", f"S{lengths['label_scheme']}"),
            ("native_voxel_counts", "<i8", NUM_LABELS),
            ("center", "<f8", num_modalities),
            ("scale", "<f8", num_modalities),
            ("data_dir", "<i4"),
            ("source_name", f"S{name_length}", num_sources),
            ("source_bytes", "<i8", num_sources),
            ("source_checksum", "<u8", num_sources),
            ("checksum", "<u8"),
        ]
    )
