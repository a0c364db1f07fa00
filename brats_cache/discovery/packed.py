"""Finds X.nii beside X.nii.gz of equal content."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from brats_cache.common.files import open_regular_file
from brats_cache.discovery.file_names import stem_of

__all__ = ["is_unpacked"]

_CHUNK_BYTES = 1 << 22


def is_unpacked(first: Path, second: Path) -> bool:
    """Whether one file is the other's content without gzip, as a set beside its archives has it.

    The last eight bytes of a gzip file are the CRC-32 and the length of its content (RFC 1952).
    """
    packed = [path for path in (first, second) if path.name.lower().endswith(".gz")]
    if stem_of(first.name) != stem_of(second.name) or len(packed) != 1:
        return False
    plain = second if packed[0] == first else first
    try:
        with open_regular_file(packed[0]) as file:
            file.seek(max(packed[0].stat().st_size - 8, 0))
            checksum, length = struct.unpack("<II", file.read(8).rjust(8))
        if length != plain.stat().st_size & 0xFFFFFFFF:
            return False
        with open_regular_file(plain) as file:
            return _crc32(file) == checksum
    except OSError:
        return False  # reading the scans tells why


def _crc32(file: BinaryIO) -> int:
    """CRC-32 of the rest of an open file."""
    crc = 0
    while data := file.read(_CHUNK_BYTES):
        crc = zlib.crc32(data, crc)
    return crc
