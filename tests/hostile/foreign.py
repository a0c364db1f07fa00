"""What is no NIfTI file under the name of one, and streams of gzip put together by hand."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from tests.hostile.mutations import Files, choose, spoil_bytes, spoil_text
from tests.hostile.scans import read_scan, valid_scans

_STARTS = (
    b"PK\x03\x04\x14\0\0\0\x08\0", b"7z\xbc\xaf\x27\x1c\0\4", b"BZh91AY&SY", b"\xfd7zXZ\0\0\4",
    b"\x28\xb5\x2f\xfd\4\0", b"\x89HDF\r\n\x1a\n\0\0", b"NRRD0004\ntype: short\ndimension: 3\n",
    b"\x89PNG\r\n\x1a\n", b"%PDF-1.7\n", b"\0" * 128 + b"DICM\2\0\0\0UL\4\0",
    b"\x93NUMPY\1\0v\0{'descr': '<i2', 'fortran_order': False, 'shape': (7, 6, 5), }\n",
    b"ObjectType = Image\nNDims = 3\nDimSize = 7 6 5\nElementDataFile = LOCAL\n",
)  # fmt: skip
_TEXTS = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    b"../.git/annex/objects/Xx/9q/SHA256E-s123--ab.nii.gz\n",
    b"<!DOCTYPE html>\n<html><head><title>Log in</title></head></html>\n",
    b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>\n',
    b'{"error": {"code": 403, "message": "forbidden"}}\n', b"Not found\n", b"",
)  # fmt: skip


def make(rng: np.random.Generator) -> Files:
    """A file of another kind, the header of a scan without its data, or a misshapen stream."""
    way = rng.random()
    if way < 0.3:
        content = choose(rng, _STARTS) + rng.bytes(int(rng.integers(2000)))
    elif way < 0.5:
        content = spoil_text(choose(rng, _TEXTS), rng)
    elif way < 0.7:
        scan = choose(rng, valid_scans())
        content = scan[: int(choose(rng, (0, 2, 10, 18, 347, 348, 351, 352, 353, 540, 544)))]
    else:
        return {"scan": _stream(rng)}
    if rng.random() < 0.3:
        content = gzip.compress(content, 1)
    return {"scan": spoil_bytes(content, rng) if rng.random() < 0.3 else content}


def _stream(rng: np.random.Generator) -> bytes:
    """Members of gzip with optional header fields, wrong trailers, and anything in between."""
    scan = choose(rng, valid_scans())
    scan = gzip.decompress(scan) if scan[:2] == b"\x1f\x8b" else scan
    cuts = sorted(int(cut) for cut in rng.integers(0, len(scan) + 1, int(rng.integers(0, 4))))
    parts = [scan[a:b] for a, b in zip([0, *cuts], [*cuts, len(scan)], strict=True)]
    stream = b"".join(_member(part, rng) for part in parts)
    if rng.random() < 0.3:
        stream += choose(rng, (b"\0" * 600, b"\x1f\x8b", b"garbage", _member(b"", rng) * 300))
    elif rng.random() < 0.01:
        empty = gzip.compress(b"") * int(choose(rng, (1000, 200_000)))
        stream = gzip.compress(scan[:600]) + empty + gzip.compress(scan[600:])
    return spoil_bytes(stream, rng) if rng.random() < 0.3 else stream


def _member(content: bytes, rng: np.random.Generator) -> bytes:
    flags = int(rng.integers(32)) if rng.random() < 0.5 else 0
    header = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\0\xff"
    if flags & 4:  # extra field
        size = int(choose(rng, (0, 4, 65535)))
        header += struct.pack("<H", size) + bytes(size if rng.random() < 0.8 else size // 2)
    for flag, text in ((8, b"name"), (16, b"comment")):
        if flags & flag:
            header += text * int(choose(rng, (1, 20_000))) + (b"\0" if rng.random() < 0.9 else b"")
    if flags & 2:  # checksum of the header
        checksum = zlib.crc32(header) & 0xFFFF if rng.random() < 0.7 else 1
        header += struct.pack("<H", checksum)
    packer = zlib.compressobj(int(rng.integers(0, 10)), zlib.DEFLATED, -int(rng.integers(9, 16)))
    body = packer.compress(content) + packer.flush()
    checksum, size = zlib.crc32(content), len(content)
    if rng.random() < 0.15:
        checksum, size = int(rng.integers(2**32)), int(rng.integers(2**32))
    return header + body + struct.pack("<II", checksum, size)


def read(folder: Path) -> None:
    """Reads the file as a scan."""
    read_scan(folder / "scan")
