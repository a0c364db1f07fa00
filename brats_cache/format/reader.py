"""An opened cache: its tables in memory, its images and masks mapped.

Nothing in a file is believed unchecked. Its seal (see `seal`) says where everything lies and is
verified over the raw bytes; then every number that is used as an index, a size or a name must be
possible, so that a file made to mislead can neither point outside itself nor ask for memory without
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
    BLANK,
    FORMAT_VERSION,
    Range,
    Seal,
    find_seal,
    outside_digest,
)
from brats_cache.format.schema import SLICE_DTYPE, SPLITS, TEXT_FIELDS, case_dtype
from brats_cache.imaging.labels import SCHEMES, Scheme
from brats_cache.imaging.orientation import Orientation
from brats_cache.imaging.preprocess import FITS, NORMALIZATIONS, Preparation

__all__ = ["LINK_MARK", "Cache", "open_cache"]

LINK_MARK = b"brats-cache-link "  # begins what `brats link` writes where a cache has its seal
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FIRST_BYTES = 1 << 16
_MAX_AXIS = 1 << 16
_MAX_MM = 1e6
_ERRORS = (
    OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, AttributeError,
    IndexError, UnicodeError, RecursionError, np.linalg.LinAlgError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Cache:
    """A cache that is whole outside its rows.

    cases            structured array, a row a case, see docs/cache-format.md
    slices           structured array, a row a row
    fingerprint      32 hex digits that two caches share only where equal scans were prepared alike
    set_fingerprint  32 hex digits that the parts of one sharded build share
    shard            (index from 1, number of parts); (1, 1) for a cache that is no part
    options          how it was built, the keys of `plan.describe_options`
    data_dirs        the DATA arguments, which `source_name` is relative to
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
        return _preparation(self.options)

    def depth(self, case: int) -> int:
        """Number of axial slices of case number `case` in its source."""
        record = self.cases[case]
        return int(record["native_shape"][Orientation.of(record["affine"]).permutation[0]])

    def rows_of(self, case: int) -> tuple[Range, Range]:
        """Where the image rows and the mask rows of case number `case` lie in the file."""
        first, num = int(self.cases["first_row"][case]), int(self.cases["rows"][case])
        _, channels, height, width = self.shape
        mask_bytes = height * width
        image_bytes = channels * mask_bytes * 2
        return (
            Range(offset=self.images_offset + first * image_bytes, num_bytes=num * image_bytes),
            Range(offset=self.masks_offset + first * mask_bytes, num_bytes=num * mask_bytes),
        )

    def scheme(self, case: int) -> Scheme:
        """The label scheme of the sources of case number `case`."""
        return SCHEMES[self.cases["label_scheme"][case].decode()]


def open_cache(path: str | Path) -> Cache:
    """Opens a finished cache, checking all of it but the rows, which `verify` does.

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
        raise CacheNotFoundError(
            f"{printable(path)}: no such file. Make it with brats build-cache."
        ) from None
    except _ERRORS as error:
        reason = str(error) or type(error).__name__
        raise _refusal(path, f"not a readable cache ({reason})") from error


def _check_bytes(path: Path, raw: BinaryIO) -> Seal:
    """The seal, where the file's bytes agree with it."""
    length = os.fstat(raw.fileno()).st_size
    start = raw.read(_FIRST_BYTES)
    if not start.startswith(_SIGNATURE):
        what = "empty" if not start else "no HDF5 file"
        raise _refusal(path, what, "Expected a cache made by brats build-cache.")
    seal = find_seal(start)
    if seal is None:
        raise _foreign(path, start)
    if seal.version != FORMAT_VERSION:
        newer = seal.version > FORMAT_VERSION
        raise _refusal(
            path,
            f"format version {seal.version} is {'newer' if newer else 'older'} than this "
            f"program's {FORMAT_VERSION}",
            "Update brats." if newer else "Build it again with brats build-cache.",
        )
    if length != seal.file_bytes:
        what = "truncated" if length < seal.file_bytes else "longer than it was made"
        raise _refusal(path, f"{what}: {length:,} bytes of {seal.file_bytes:,}")
    if seal.digest == BLANK:
        raise _refusal(path, "unfinished", "The brats build-cache that began it goes on with it.")
    if outside_digest(raw.fileno(), seal) != seal.digest:
        raise _refusal(path, "damaged: its tables or attributes do not match their checksum")
    return seal


def _foreign(path: Path, start: bytes) -> CacheCorruptError:
    place = start.find(LINK_MARK)
    if place < 0:
        return _refusal(
            path, "an HDF5 file, but no cache", "Expected one made by brats build-cache."
        )
    # In a link the mark is followed by the parts' names, as a JSON list of text.
    text = start[place + len(LINK_MARK) :].decode(errors="replace")
    try:
        parts, _ = json.JSONDecoder().raw_decode(text)
        names = " ".join(map(str, parts))
    except (ValueError, TypeError, RecursionError):
        names = "the caches it was made of"
    return _refusal(
        path, "a link over caches, for h5py alone", f"Name the caches themselves: {names}"
    )


def _refusal(path: Path, what: str, way: str = "Copy or build it again.") -> CacheCorruptError:
    return CacheCorruptError(f"{printable(path)}: {printable(what)}. {printable(way)}")


def _read(path: Path, raw: BinaryIO, seal: Seal) -> Cache:
    content = json.loads(_bytes_of(raw, seal.places["about"]))
    preparation = _preparation(content["options"])
    data_dirs = [str(name) for name in content["data_dirs"]]
    shard = int(content["shard"][0]), int(content["shard"][1])
    kinds = case_dtype(
        {name: int(content["text_bytes"][name]) for name in TEXT_FIELDS},
        len(preparation.modalities),
    )
    slices = np.frombuffer(_bytes_of(raw, seal.places["slices"]), SLICE_DTYPE)
    cases = np.frombuffer(_bytes_of(raw, seal.places["cases"]), kinds)
    if not len(slices):
        raise ValueError("it holds no row")
    shape = (len(slices), len(preparation.modalities), preparation.size, preparation.size)
    for name, wanted in {
        "images": math.prod(shape) * 2,
        "masks": math.prod(shape) // shape[1],
    }.items():
        if seal.places[name].num_bytes != wanted:
            raise ValueError(f"{seal.places[name].num_bytes:,} bytes of {name} for {shape}")
    _check_tables(cases, slices, num_data_dirs=len(data_dirs))
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"it calls itself part {shard[0]} of {shard[1]}")
    prints = [content["fingerprint"], content["set_fingerprint"]]
    if not all(re.fullmatch("[0-9a-f]{32}", text) for text in prints):
        raise ValueError(f"the fingerprints {prints}")
    return Cache(
        path=path,
        shape=shape,
        images_offset=seal.places["images"].offset,
        masks_offset=seal.places["masks"].offset,
        cases=cases,
        slices=slices,
        fingerprint=prints[0],
        set_fingerprint=prints[1],
        shard=shard,
        writer=str(content["writer"]),
        options=content["options"],
        data_dirs=tuple(map(Path, data_dirs)),
    )


def _bytes_of(raw: BinaryIO, place: Range) -> bytes:
    """Not more than `MAX_TABLES`, of which the seal is made sure."""
    raw.seek(place.offset)
    return raw.read(place.num_bytes)


def _check_tables(cases: np.ndarray, slices: np.ndarray, num_data_dirs: int) -> None:
    """Every number that is later used as an index, a size or a name."""
    rows, depth = cases["rows"], cases["native_shape"].max(axis=1, initial=0)
    ends = np.cumsum(rows.astype(object)) if len(rows) else np.zeros(0, object)
    numbers = np.repeat(np.arange(len(cases)), rows) if _is_sum(ends, rows, len(slices)) else None
    sound = {
        "rows": numbers is not None and np.array_equal(cases["first_row"], ends - rows),
        "case": numbers is not None and np.array_equal(slices["case"], numbers),
        "native_shape": np.all((cases["native_shape"] > 0) & (cases["native_shape"] < _MAX_AXIS)),
        "data_dir": np.all((cases["data_dir"] >= 0) & (cases["data_dir"] < num_data_dirs)),
        "split": set(cases["split"].tolist()) <= {name.encode() for name in SPLITS},
        "label_scheme": set(cases["label_scheme"].tolist()) <= {n.encode() for n in SCHEMES},
        "has_mask": np.all(cases["has_mask"] <= 1),
        "counts": np.all(cases["native_voxel_counts"] >= 0) and np.all(slices["label_pixels"] >= 0),
        "affine": bool((np.abs(cases["affine"]) < _MAX_MM).all()),  # NaN is not less either
        "id": len(set(cases["id"].tolist())) == len(cases),
    }
    if sound["rows"] and sound["case"]:
        sound["z"] = np.all((slices["z"] >= 0) & (slices["z"] < depth[slices["case"]]))
    if wrong := [name for name, is_sound in sound.items() if not is_sound]:
        raise ValueError(f"impossible values in {', '.join(wrong)} of its tables")
    for name in ("id", "patient", "survival", "grade", "source_name"):
        for value in np.unique(cases[name]):
            value.decode()
    for affine in np.unique(cases["affine"].reshape(-1, 16), axis=0).reshape(-1, 4, 4):
        if not abs(np.linalg.det(affine[:3, :3])) > 1e-9 or not _has_axes(affine):
            raise ValueError("an affine that is no grid in space")


def _has_axes(affine: np.ndarray) -> bool:
    return sorted(Orientation.of(affine).permutation) == [0, 1, 2]


def _is_sum(ends: np.ndarray, rows: np.ndarray, num_rows: int) -> bool:
    return bool(np.all(rows >= 0)) and (ends[-1] if len(ends) else 0) == num_rows


def _preparation(options: Mapping[str, Any]) -> Preparation:
    names = {field.name for field in fields(Preparation)}
    known = {name: value for name, value in options.items() if name in names}
    preparation = Preparation(**{**known, "modalities": tuple(known["modalities"])})
    modalities, size = preparation.modalities, preparation.size
    if not modalities or not set(modalities) <= set(MODALITIES):
        raise ValueError(f"modalities {modalities}")
    if type(size) is not int or not 0 < size < _MAX_AXIS:
        raise ValueError(f"slices of size {size}")
    if preparation.fit not in FITS or preparation.normalize not in NORMALIZATIONS:
        raise ValueError(f"slices made by {preparation.fit} and {preparation.normalize}")
    return preparation
