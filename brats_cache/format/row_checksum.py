"""The checksum of the rows of one case."""

from __future__ import annotations

import os
from collections.abc import Sequence

import xxhash

from brats_cache.format.checksum import Range

__all__ = ["CHUNK_BYTES", "read_rows_checksum"]

CHUNK_BYTES = 4 << 20


def read_rows_checksum(descriptor: int, places: Sequence[Range]) -> int:
    """The same checksum of rows that lie in an open file: the place of a case's image rows, then of
    its mask rows. Raises ValueError where the file ends before them."""
    digest = xxhash.xxh3_64()
    buffer = bytearray(CHUNK_BYTES)
    for place in places:
        position = place.offset
        while position < place.end:
            view = memoryview(buffer)[: min(CHUNK_BYTES, place.end - position)]
            num_read = os.preadv(descriptor, [view], position)
            if not num_read:
                raise ValueError(f"the file ends at byte {position:,}")
            digest.update(view[:num_read])
            position += num_read
    return digest.intdigest()
