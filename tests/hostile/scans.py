"""NIfTI files made to hurt their reader, from a seed."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np

from brats_cache.imaging.nifti import read_contents, read_labels, read_volume
from brats_cache.imaging.nifti_header import read_header
from tests.hostile.mutations import EXTREMES, FLOATS, Files


def make(rng: np.random.Generator) -> Files:
    """One mutated NIfTI file."""
    seeds = valid_scans()
    raw = bytearray(seeds[int(rng.integers(len(seeds)))])
    for _ in range(int(rng.integers(1, 4))):
        mutate = _SCAN_MUTATIONS[int(rng.integers(len(_SCAN_MUTATIONS)))]
        raw = mutate(raw, rng)
    if rng.random() < 0.3:
        raw = bytearray(gzip.compress(bytes(raw), 1))
        if rng.random() < 0.5:
            raw = _flip_bytes(raw, rng)
    return {"scan": bytes(raw)}


@cache
def valid_scans() -> tuple[bytes, ...]:
    """Small scans of several types, plain and packed."""
    shape = (7, 6, 5)
    rng = np.random.default_rng(0)
    seeds = []
    for kind, dtype, channels in (
        (nib.Nifti1Image, np.int16, ()),
        (nib.Nifti1Image, np.uint8, ()),
        (nib.Nifti1Image, np.float32, ()),
        (nib.Nifti1Image, np.float64, (1,)),
        (nib.Nifti1Image, np.int32, (4,)),
        (nib.Nifti2Image, np.uint16, ()),
    ):
        data = rng.integers(0, 5, shape + channels).astype(dtype)
        image = kind(data, np.diag([-1.0, -1, 1, 1]), dtype=dtype)
        seeds += [image.to_bytes(), gzip.compress(image.to_bytes(), 1, mtime=0)]
    return tuple(seeds)


def _flip_bytes(raw: bytearray, rng: np.random.Generator) -> bytearray:
    reach = len(raw) if rng.random() < 0.3 else min(len(raw), 360)  # mostly in the header
    for _ in range(int(rng.integers(1, 6)) if reach else 0):
        raw[int(rng.integers(reach))] = int(rng.integers(256))
    return raw


def _set_number(raw: bytearray, rng: np.random.Generator) -> bytearray:
    """An extreme number where a header may have one."""
    form = str(rng.choice([">", "<"])) + str(rng.choice(list("hiqfd")))
    value = rng.choice(FLOATS) if form[1] in "fd" else int(rng.choice(EXTREMES[:13]))
    bits = 8 * struct.calcsize(form)
    if form[1] not in "fd":
        value = (int(value) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    place = 2 * int(rng.integers(0, 180))
    packed = struct.pack(form, value)
    if place + len(packed) <= len(raw):
        raw[place : place + len(packed)] = packed
    return raw


def _set_dimensions(raw: bytearray, rng: np.random.Generator) -> bytearray:
    """Dimensions and types that ask for gigabytes, with data that may or may not be there."""
    if len(raw) >= 348:
        rank = int(rng.integers(-1, 9))
        dims = [int(rng.choice([1, 2, 7, 300, 512, 1024, 4096, 32767, 0, -1])) for _ in range(7)]
        raw[40:56] = struct.pack("<8h", rank, *dims)
        raw[70:74] = struct.pack("<2h", int(rng.choice([2, 4, 8, 16, 32, 64, 128, 512, 1280])), 16)
    return raw


def _cut(raw: bytearray, rng: np.random.Generator) -> bytearray:
    return raw[: int(rng.integers(len(raw) + 1))]


def _lengthen(raw: bytearray, rng: np.random.Generator) -> bytearray:
    return raw + rng.bytes(int(rng.integers(1, 2000)))


def _bomb(raw: bytearray, rng: np.random.Generator) -> bytearray:
    """A gzip file of zeros that are far more than it, behind what was there."""
    zeros = compressed_zeros()
    return bytearray(gzip.compress(bytes(raw), 1)) + zeros * int(rng.choice([1, 4, 30]))


@cache
def compressed_zeros() -> bytes:
    """64 MiB of zeros, compressed."""
    return gzip.compress(bytes(64 << 20), 9)


def _repeat(raw: bytearray, rng: np.random.Generator) -> bytearray:
    return raw * int(rng.integers(2, 5))


_SCAN_MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (
    _flip_bytes, _flip_bytes, _set_number, _set_number, _set_dimensions, _cut, _lengthen, _bomb,
    _repeat,
)  # fmt: skip


def read(folder: Path) -> None:
    """Reads the scan in a folder."""
    read_scan(folder / "scan")


def read_scan(path: Path) -> None:
    """Everything that is done with a scan. Raises `BratsError` for what cannot be read."""
    header = read_header(path)
    contents = read_contents(header)
    channel = header.num_channels - 1 if header.num_channels > 1 else None
    volume = read_volume(contents, channel)
    assert volume.shape == header.canonical_shape
    del volume
    read_labels(contents, channel)
