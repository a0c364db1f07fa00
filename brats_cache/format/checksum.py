"""The checksum record of a cache file: one text attribute that says where every object lies and
holds the checksum of every byte outside the rows.

It is found and checked in the raw bytes, so that a damaged, truncated or foreign file is refused
before any HDF5 structure of it is used: the HDF5 library crashes on some forged files, and reading
a cache does not need it. The attribute is called `seal`. Its text is of fixed length:

    brats-cache VVVV xxh3_128 DDDD...DDDD file B about O L cases O L slices O L images O L masks O L

VVVV is the format version in 4 decimal digits and D are 32 hex digits. The rest are byte counts of
16 decimal digits: the file's length, then offset and length of each object. The digest covers all
bytes of the file but images and masks, its own 32 digits read as question marks. The rows have
checksums of their own, one a case, in the table that the digest covers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import xxhash

__all__ = [
    "BLANK_DIGEST",
    "FORMAT_VERSION",
    "MAX_METADATA_BYTES",
    "ByteRange",
    "ChecksumRecord",
    "find_checksum_record",
    "metadata_digest",
]

FORMAT_VERSION = 1
# All bytes outside the rows; a thousand cases of 155 slices take 8 MiB.
MAX_METADATA_BYTES = 256 << 20
BLANK_DIGEST = "?" * 32
OBJECTS = ("about", "cases", "slices", "images", "masks")
_PATTERN = re.compile(
    rb"brats-cache (\d{4}) xxh3_128 ([0-9a-f]{32}|\?{32}) file (\d{16})"
    + b"".join(rb" %b (\d{16}) (\d{16})" % name.encode() for name in OBJECTS)
)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ByteRange:
    """A range of bytes in a file.

    Attributes:
        offset: First byte.
        num_bytes: Length.
    """

    offset: int
    num_bytes: int

    @property
    def end(self) -> int:
        """The byte after the last one."""
        return self.offset + self.num_bytes


@dataclass(frozen=True, kw_only=True)
class ChecksumRecord:
    """The checksum record as it stands in a file.

    Attributes:
        digest: 32 hex digits, `BLANK_DIGEST` while the file is unfinished.
        file_bytes: Length of the whole file.
        byte_ranges: Byte range of each of `OBJECTS`.
        version: Format version of the file.
        offset: First byte of the record itself.
    """

    digest: str
    file_bytes: int
    byte_ranges: Mapping[str, ByteRange]
    version: int = FORMAT_VERSION
    offset: int = 0

    @classmethod
    def blank(cls) -> ChecksumRecord:
        """Makes a record of the final length for a file whose layout is not known yet."""
        empty = ByteRange(offset=0, num_bytes=0)
        return cls(digest=BLANK_DIGEST, file_bytes=0, byte_ranges=dict.fromkeys(OBJECTS, empty))

    def __str__(self) -> str:
        ranges = (
            f" {name} {self.byte_ranges[name].offset:016d} {self.byte_ranges[name].num_bytes:016d}"
            for name in OBJECTS
        )
        start = f"brats-cache {self.version:04d} xxh3_128 {self.digest} file {self.file_bytes:016d}"
        return start + "".join(ranges)

    @property
    def digest_offset(self) -> int:
        """First byte of the digest in the file."""
        return self.offset + str(self).index(self.digest)


def find_checksum_record(start: bytes) -> ChecksumRecord | None:
    """Finds the checksum record in the first bytes of a file.

    Returns:
        The record, None where there is none.
    """
    found = _PATTERN.search(start)
    if not found:
        return None
    version, digest, length, *numbers = found.groups()
    byte_ranges = {
        name: ByteRange(offset=int(offset), num_bytes=int(num_bytes))
        for name, offset, num_bytes in zip(OBJECTS, numbers[::2], numbers[1::2], strict=True)
    }
    return replace(
        ChecksumRecord.blank(),
        version=int(version),
        digest=digest.decode(),
        file_bytes=int(length),
        byte_ranges=byte_ranges,
        offset=found.start(),
    )


def metadata_digest(descriptor: int, record: ChecksumRecord) -> str:
    """Computes the xxh3_128 of all bytes of a file but its images and masks.

    Args:
        descriptor: The file, open for reading.
        record: Its checksum record, whose own digest is read as question marks.

    Returns:
        32 hex digits.

    Raises:
        ValueError: The byte ranges do not fit such a file, or leave more than
            `MAX_METADATA_BYTES` to read.
    """
    digest = xxhash.xxh3_128()
    for part in _metadata_ranges(record):
        position = part.offset
        while position < part.end:
            chunk = os.pread(descriptor, min(_CHUNK_BYTES, part.end - position), position)
            if not chunk:
                raise ValueError(f"the file ends at byte {position:,}")
            digest.update(_without_digest(chunk, record.digest_offset - position))
            position += len(chunk)
    return digest.hexdigest()


def _metadata_ranges(record: ChecksumRecord) -> list[ByteRange]:
    """The bytes before, between and after images and masks, which must hold everything else."""
    *others, images, masks = (record.byte_ranges[name] for name in OBJECTS)
    first, second = sorted((images, masks), key=lambda part: (part.offset, part.end))
    borders = [0, first.offset, first.end, second.offset, second.end, record.file_bytes]
    if borders != sorted(borders):
        raise ValueError("its rows overlap or lie outside the file")
    parts = [
        ByteRange(offset=start, num_bytes=end - start)
        for start, end in zip(borders[::2], borders[1::2], strict=True)
    ]
    if sum(part.num_bytes for part in parts) > MAX_METADATA_BYTES:
        raise ValueError(f"it holds more than {MAX_METADATA_BYTES >> 20} MiB beside its rows")
    own = ByteRange(offset=record.offset, num_bytes=len(str(record)))
    for one in (own, *others):
        if not any(part.offset <= one.offset and one.end <= part.end for part in parts):
            raise ValueError("its tables lie among the rows or outside the file")
    return parts


def _without_digest(chunk: bytes, digest_start: int) -> bytes:
    """`chunk` with the digest's digits, which begin at index `digest_start`, as question marks."""
    first, last = max(digest_start, 0), min(digest_start + len(BLANK_DIGEST), len(chunk))
    if first >= last:
        return chunk
    return chunk[:first] + b"?" * (last - first) + chunk[last:]
