"""The checksum of the rows of one case."""

from __future__ import annotations

import os
from collections.abc import Sequence

import xxhash

from brats_cache.format.checksum import ByteRange

__all__ = ["CHUNK_BYTES", "read_rows_checksum"]

CHUNK_BYTES = 4 << 20


def read_rows_checksum(descriptor: int, byte_ranges: Sequence[ByteRange]) -> int:
    """Computes the xxh3_64 of the rows of a case that lie in a file.

    Args:
        descriptor: The file, open for reading.
        byte_ranges: Of the case's image rows, then of its mask rows.

    Returns:
        The checksum, 64 bits.

    Raises:
        ValueError: The file ends before the rows do.
    """
    digest = xxhash.xxh3_64()
    buffer = bytearray(CHUNK_BYTES)
    for part in byte_ranges:
        position = part.offset
        while position < part.end:
            view = memoryview(buffer)[: min(CHUNK_BYTES, part.end - position)]
            num_read = os.preadv(descriptor, [view], position)
            if not num_read:
                raise ValueError(f"the file ends at byte {position:,}")
            digest.update(view[:num_read])
            position += num_read
    return digest.intdigest()
