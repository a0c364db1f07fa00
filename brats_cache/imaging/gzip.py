"""Gzip streams: detecting them, inflating their start or all of them."""

from __future__ import annotations

import zlib

from isal import igzip_lib

__all__ = [
    "CHUNK_BYTES",
    "GZIP_ERRORS",
    "HEADER_BYTES",
    "MAX_DATA_BYTES",
    "inflate",
    "inflate_start",
    "is_gzip",
]

# As in the file and as float32: a head at 0.4 mm is less, and a forged header may say anything. Two
# copies of a volume, which reading takes, stay under 1 GB.
MAX_DATA_BYTES = 384 << 20
HEADER_BYTES = 540  # of NIfTI-2, the longer one
CHUNK_BYTES = 1 << 20  # bytes inflated at once where they are only checked
MAX_MEMBERS = 20_000  # bgzip makes one of every 64 KiB: 6,000 of the largest volume
_MEMBER_BYTES = 1 << 16  # given at once to members after the first
# isal's error is not zlib's, and its type stub calls the class an instance.
GZIP_ERRORS: tuple[type[Exception], ...] = (
    EOFError,
    zlib.error,
    igzip_lib.IsalError,  # type: ignore[assignment]
)


def is_gzip(start: bytes) -> bool:
    """Whether the first bytes of a file are those of a gzip stream."""
    return start[:2] == b"\x1f\x8b"


def inflate_start(raw: bytes) -> bytes:
    """Inflates the first `HEADER_BYTES` of a gzip stream.

    Args:
        raw: The start of the stream.

    Returns:
        The bytes, or fewer where the stream or `raw` ends before.
    """
    start = b""
    while is_gzip(raw) and len(start) < HEADER_BYTES:
        member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        start += member.decompress(raw, max_length=HEADER_BYTES - len(start))
        raw = member.unused_data if member.eof else b""
    return start


def inflate(raw: bytes, wanted: int) -> bytes:
    """Inflates the start of a gzip stream of any number of members.

    What follows is inflated too, in chunks, and dropped: the checksum at the end of a member is the
    only proof of its content.

    Args:
        raw: The whole stream.
        wanted: Number of bytes to return.

    Returns:
        The first `wanted` bytes, or fewer where the stream ends before.

    Raises:
        EOFError: The stream is cut, goes on for more than `MAX_DATA_BYTES` beyond `wanted`, or has
            more than `MAX_MEMBERS`; or another of `GZIP_ERRORS` where it is damaged.
    """
    chunks: list[bytes] = []
    total = surplus = position = num_members = 0
    # The first member, mostly the only one, is given the whole stream and returns its data whole.
    # The others get a little at a time: a member copies what it was given beyond its end, which
    # takes minutes where there are a hundred thousand.
    num_given = len(raw)
    while is_gzip(raw[position : position + 2]) and total < wanted:
        num_members += 1
        if num_members > MAX_MEMBERS:
            raise EOFError(f"more than {MAX_MEMBERS:,} compressed parts one after another")
        member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        while not member.eof:
            given = raw[position : position + num_given] if member.needs_input else b""
            position += len(given)
            is_wanted = total < wanted
            chunk = member.decompress(given, wanted - total if is_wanted else CHUNK_BYTES)
            if not chunk and not given and not member.eof:
                raise EOFError("the compressed data ends before its end mark")
            if is_wanted:
                chunks.append(chunk)
                total += len(chunk)
            else:
                surplus += len(chunk)
            if surplus > MAX_DATA_BYTES:
                raise EOFError("the data goes on far beyond what the header says")
        position -= len(member.unused_data)
        num_given = _MEMBER_BYTES
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
