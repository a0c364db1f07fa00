"""The seal of a cache file: one attribute that says where everything lies and proves every byte
outside the rows.

It is found and checked in the raw bytes, so a damaged, truncated or foreign file is told apart
without trusting it, and a cache is read without the HDF5 library, which crashes on some files that
were made to hurt it. The text is of fixed length:

    brats-cache VVVV xxh3_128 DDDD...DDDD file B about O L cases O L slices O L images O L masks O L

VVVV is the format version in 4 decimal digits, D 32 hex digits, and the rest are byte counts of 16
decimal digits: the file's length, then offset and length of each object. The digest covers all
bytes of the file but images and masks, its own 32 digits read as question marks. The rows have
checksums of their own, a case each, in the table that the digest covers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import xxhash

__all__ = ["BLANK", "FORMAT_VERSION", "MAX_TABLES", "Range", "Seal", "find_seal", "outside_digest"]

FORMAT_VERSION = 1
MAX_TABLES = 256 << 20  # bytes outside the rows; a thousand cases of 155 slices take 8 MiB
BLANK = "?" * 32
OBJECTS = ("about", "cases", "slices", "images", "masks")
_PATTERN = re.compile(
    rb"brats-cache (\d{4}) xxh3_128 ([0-9a-f]{32}|\?{32}) file (\d{16})"
    + b"".join(rb" %b (\d{16}) (\d{16})" % name.encode() for name in OBJECTS)
)
_PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Range:
    """`num_bytes` from byte `offset` on."""

    offset: int
    num_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.num_bytes


@dataclass(frozen=True, kw_only=True)
class Seal:
    """A seal as it stands in a file.

    digest  32 hex digits, `BLANK` while the file is unfinished
    places  where each of `OBJECTS` lies
    place   first byte of the seal itself
    """

    digest: str
    file_bytes: int
    places: Mapping[str, Range]
    version: int = FORMAT_VERSION
    place: int = 0

    @classmethod
    def blank(cls) -> Seal:
        """The seal of a file that is not laid out yet, which holds its place."""
        nowhere = Range(offset=0, num_bytes=0)
        return cls(digest=BLANK, file_bytes=0, places=dict.fromkeys(OBJECTS, nowhere))

    def __str__(self) -> str:
        places = (
            f" {name} {self.places[name].offset:016d} {self.places[name].num_bytes:016d}"
            for name in OBJECTS
        )
        start = f"brats-cache {self.version:04d} xxh3_128 {self.digest} file {self.file_bytes:016d}"
        return start + "".join(places)

    @property
    def digest_place(self) -> int:
        return self.place + str(self).index(self.digest)


def find_seal(start: bytes) -> Seal | None:
    """The seal in the first bytes of a file, None where there is none."""
    found = _PATTERN.search(start)
    if not found:
        return None
    version, digest, length, *numbers = found.groups()
    places = {
        name: Range(offset=int(offset), num_bytes=int(num_bytes))
        for name, offset, num_bytes in zip(OBJECTS, numbers[::2], numbers[1::2], strict=True)
    }
    return replace(
        Seal.blank(),
        version=int(version),
        digest=digest.decode(),
        file_bytes=int(length),
        places=places,
        place=found.start(),
    )


def outside_digest(descriptor: int, seal: Seal) -> str:
    """xxh3_128 over what lies outside the rows of an open file, as 32 hex digits.

    Raises ValueError where the places are no places in such a file, or leave more than
    `MAX_TABLES` bytes to read.
    """
    digest = xxhash.xxh3_128()
    for part in _outside(seal):
        position = part.offset
        while position < part.end:
            piece = os.pread(descriptor, min(_PIECE, part.end - position), position)
            if not piece:
                raise ValueError(f"the file ends at byte {position:,}")
            digest.update(_blanked(piece, seal.digest_place - position))
            position += len(piece)
    return digest.hexdigest()


def _outside(seal: Seal) -> list[Range]:
    """The bytes before, between and after the rows, in which everything else must lie."""
    *others, images, masks = (seal.places[name] for name in OBJECTS)
    first, second = sorted((images, masks), key=lambda part: (part.offset, part.end))
    borders = [0, first.offset, first.end, second.offset, second.end, seal.file_bytes]
    if borders != sorted(borders):
        raise ValueError("its rows overlap or lie outside the file")
    parts = [
        Range(offset=start, num_bytes=end - start)
        for start, end in zip(borders[::2], borders[1::2], strict=True)
    ]
    if sum(part.num_bytes for part in parts) > MAX_TABLES:
        raise ValueError(f"it holds more than {MAX_TABLES >> 20} MiB beside its rows")
    own = Range(offset=seal.place, num_bytes=len(str(seal)))
    for one in (own, *others):
        if not any(part.offset <= one.offset and one.end <= part.end for part in parts):
            raise ValueError("its tables lie among the rows or outside the file")
    return parts


def _blanked(piece: bytes, place: int) -> bytes:
    """`piece` with the digest's digits, which begin at `place` in it, as question marks."""
    first, last = max(place, 0), min(place + len(BLANK), len(piece))
    if first >= last:
        return piece
    return piece[:first] + b"?" * (last - first) + piece[last:]
