"""The seal of a cache file: one attribute of known length that proves every byte outside the rows.

It can be found and checked in the raw bytes, before the HDF5 library parses anything, so a damaged,
truncated or foreign file is told apart without trusting it:

    brats-cache VVVV xxh3_128 DDDD...DDDD file B images O L masks O L

VVVV is the format version in 4 decimal digits, D 32 hex digits, and the rest are byte counts of 16
decimal digits: the file's length, then offset and length of the images and of the masks. The digest
covers all bytes of the file but those two ranges, its own 32 digits read as question marks. The
rows have checksums of their own, a case each, in the table that the digest covers.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace

import xxhash

__all__ = ["BLANK", "FORMAT_VERSION", "MAX_TABLES", "Range", "Seal", "find_seal", "outside_digest"]

FORMAT_VERSION = 1
MAX_TABLES = 256 << 20  # bytes outside the rows; a thousand cases of 155 slices take 8 MiB
BLANK = "?" * 32
_PATTERN = re.compile(
    rb"brats-cache (\d{4}) xxh3_128 ([0-9a-f]{32}|\?{32}) file (\d{16}) "
    rb"images (\d{16}) (\d{16}) masks (\d{16}) (\d{16})"
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
    """A seal as it stands in a file; `place` is its own first byte there."""

    digest: str
    file_bytes: int
    images: Range
    masks: Range
    version: int = FORMAT_VERSION
    place: int = 0

    def __str__(self) -> str:
        return (
            f"brats-cache {self.version:04d} xxh3_128 {self.digest} file {self.file_bytes:016d} "
            f"images {self.images.offset:016d} {self.images.num_bytes:016d} "
            f"masks {self.masks.offset:016d} {self.masks.num_bytes:016d}"
        )

    @property
    def digest_place(self) -> int:
        return self.place + str(self).index(self.digest)

    def signed(self, digest: str) -> Seal:
        return replace(self, digest=digest)


def find_seal(start: bytes) -> Seal | None:
    """The seal in the first bytes of a file, None where there is none."""
    found = _PATTERN.search(start)
    if not found:
        return None
    version, digest, *numbers = found.groups()
    length, images, image_bytes, masks, mask_bytes = map(int, numbers)
    return Seal(
        version=int(version),
        digest=digest.decode(),
        file_bytes=length,
        images=Range(offset=images, num_bytes=image_bytes),
        masks=Range(offset=masks, num_bytes=mask_bytes),
        place=found.start(),
    )


def outside_digest(descriptor: int, seal: Seal) -> str:
    """xxh3_128 over what lies outside the rows of an open file, as 32 hex digits.

    Raises ValueError where the seal's ranges are no ranges of such a file, or leave more than
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
    first, second = sorted((seal.images, seal.masks), key=lambda part: (part.offset, part.end))
    borders = [0, first.offset, first.end, second.offset, second.end, seal.file_bytes]
    if borders != sorted(borders):
        raise ValueError("its rows overlap or lie outside the file")
    if not seal.digest_place + len(BLANK) <= first.offset:
        raise ValueError("its seal lies among the rows")
    parts = [
        Range(offset=start, num_bytes=end - start)
        for start, end in zip(borders[::2], borders[1::2], strict=True)
    ]
    if sum(part.num_bytes for part in parts) > MAX_TABLES:
        raise ValueError(f"it holds more than {MAX_TABLES >> 20} MiB beside its rows")
    return parts


def _blanked(piece: bytes, place: int) -> bytes:
    """`piece` with the digest's digits, which begin at `place` in it, as question marks."""
    first, last = max(place, 0), min(place + len(BLANK), len(piece))
    if first >= last:
        return piece
    return piece[:first] + b"?" * (last - first) + piece[last:]
