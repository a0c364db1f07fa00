"""Caches made to hurt their reader, from a seed."""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np

from brats_cache.build.options import BuildOptions
from brats_cache.build.plan import make_plan
from brats_cache.build.survey import load_case
from brats_cache.build.write_case import WriteTask, write_case
from brats_cache.build.writer import create, finish
from brats_cache.discovery.cases import Case, Scan
from brats_cache.discovery.namings import MODALITIES
from brats_cache.format.checksum import BLANK_DIGEST, find_checksum_record, metadata_digest
from brats_cache.format.reader import open_cache
from brats_cache.format.verify import verify_rows
from brats_cache.imaging.preprocess import Preparation
from tests.hostile.mutations import EXTREMES, FLOATS, Files

SMALL = BuildOptions(preparation=Preparation(modalities=MODALITIES, size=16), slices="all")


def make(rng: np.random.Generator) -> Files:
    """One misleading cache."""
    way = rng.random()
    if way < 0.25:
        return {"cache.h5": _crafted(rng)}
    if way < 0.5:
        return {"cache.h5": sealed(_about(small_cache(), rng))}
    return {"cache.h5": _changed(rng)}


def _changed(rng: np.random.Generator) -> bytes:
    """A cache with other bytes in its structures, mostly sealed again."""
    raw = bytearray(small_cache())
    record = find_checksum_record(raw)
    assert record is not None
    for _ in range(int(rng.integers(1, 4))):
        first, last = _structure(raw) if rng.random() < 0.8 else (0, max(len(raw), 1))
        place = min(int(rng.integers(first, last)), len(raw) - 1)
        choice = rng.random()
        if choice < 0.5:
            raw[place] = int(rng.integers(256))
        elif choice < 0.9:
            value = int(rng.choice(EXTREMES)) % 2**64
            raw[place : place + 8] = struct.pack("<Q", value)[: len(raw) - place]
        else:
            raw = raw[: place + 1] if rng.random() < 0.5 else raw + rng.bytes(100)
    return sealed(bytes(raw)) if rng.random() < 0.8 else bytes(raw)


def _structure(raw: bytes) -> tuple[int, int]:
    """Where HDF5's own structures and the tables lie: all but the rows."""
    record = find_checksum_record(raw)
    end = record.byte_ranges["images"].offset if record else 0
    return (0, end) if 0 < end <= len(raw) else (0, max(len(raw), 1))


def sealed(raw: bytes) -> bytes:
    """`raw` with the digest and the length in its checksum record made to agree with its bytes."""
    record = find_checksum_record(raw)
    if record is None:
        return raw
    record = replace(record, digest=BLANK_DIGEST, file_bytes=len(raw))
    raw = raw[: record.offset] + str(record).encode() + raw[record.offset + len(str(record)) :]
    with tempfile.TemporaryFile() as file:
        file.write(raw)
        file.flush()
        try:
            digest = metadata_digest(file.fileno(), record)
        except ValueError:
            return raw
    return raw[: record.digest_offset] + digest.encode() + raw[record.digest_offset + 32 :]


@cache
def small_cache(options: BuildOptions = SMALL) -> bytes:
    """A whole cache of two tiny cases."""
    preparation = options.preparation
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        surveys = [load_case(case, preparation).survey for case in small_cases(data)]
        plan = make_plan(surveys, (data,), options)
        path = data / "small.h5"
        layout = create(path, plan)
        checksums = [
            write_case(WriteTask(path=path, layout=layout, case=case, preparation=preparation))
            for case in plan.cases
        ]
        finish(path, plan, layout, np.array(checksums, np.uint64))
        return path.read_bytes()


def small_cases(data: Path) -> list[Case]:
    """Two tiny cases in a folder; their scans are written where they are not there."""
    return [
        Case(
            id=name,
            patient=name,
            naming="plain",
            data_dir=data,
            images={role: _tiny(data / f"{name}_{role}.nii", name) for role in MODALITIES},
            mask=_tiny(data / f"{name}_seg.nii", "", high=2),
        )
        for name in ("a", "b")
    ]


def _tiny(path: Path, seed: str, high: int = 900) -> Scan:
    if path.exists():
        return Scan(path=path)
    rng = np.random.default_rng(list(path.name.encode() + seed.encode()))
    data = rng.integers(0, high, (7, 6, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([-1.0, -1, 1, 1]), dtype=np.int16), path)
    return Scan(path=path)


def _crafted(rng: np.random.Generator) -> bytes:
    """A small cache with one of its objects replaced through the library, and sealed again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crafted.h5"
        path.write_bytes(small_cache())
        craft = _CRAFTS[int(rng.integers(len(_CRAFTS)))]
        name = str(rng.choice(["images", "masks", "slices", "cases"]))
        with h5py.File(path, "r+") as file:
            craft(file, name, rng)
        return sealed(path.read_bytes())


def _chunked(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    old = file[name]
    shape = old.shape if rng.random() < 0.5 else (1 << 40, *old.shape[1:])
    dtype = old.dtype
    del file[name]
    chunks = tuple(min(n, 8) for n in shape)
    file.create_dataset(name, shape, dtype, chunks=chunks, compression="gzip")


def _huge(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    """Contiguous and claimed to be enormous, without a byte allocated."""
    old = file[name]
    shape = (int(rng.choice([1 << 20, 1 << 34, 1 << 50])), *old.shape[1:])
    dtype = old.dtype
    del file[name]
    file.create_dataset(name, shape, dtype)


def _external(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    target = str(rng.choice(["/etc/passwd", "../../etc/passwd", "/dev/zero", "new-file"]))
    del file[name]
    file.create_dataset(name, shape, dtype, external=[(target, 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    shape, dtype = file[name].shape, file[name].dtype
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource("../elsewhere.h5", name, shape, dtype)
    del file[name]
    file.create_virtual_dataset(name, layout)


def _linked(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    del file[name]
    links = (
        h5py.ExternalLink("../elsewhere.h5", name),
        h5py.SoftLink("/" + name),
        h5py.SoftLink("/../" + name),
    )
    file[name] = links[int(rng.integers(len(links)))]


def _group(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    del file[name]
    file.create_group(name)["/loop"] = h5py.SoftLink("/")


def _typed(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    shape = file[name].shape
    kinds = (
        h5py.ref_dtype, h5py.string_dtype(), np.dtype(">f2"), np.dtype("f8"), np.dtype("S7"),
        np.dtype([("case", h5py.string_dtype()), ("z", h5py.ref_dtype)]),
        h5py.vlen_dtype(np.int32), np.dtype([("case", "<i4")]),
    )  # fmt: skip
    del file[name]
    file.create_dataset(name, shape, kinds[int(rng.integers(len(kinds)))])


def _reshaped(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    dtype = file[name].dtype
    shapes = ((), (0,), (1,), (3, 3), (10, 4, 16, 16, 1), (10, 16), (11, 4, 16, 16))
    del file[name]
    file.create_dataset(name, shapes[int(rng.integers(len(shapes)))], dtype)


def _values(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    """Numbers in the tables that point elsewhere."""
    table = file["cases" if rng.random() < 0.6 else "slices"]
    rows = table[:]
    field = str(rng.choice(rows.dtype.names))
    part = rows[field]
    if part.dtype.kind == "S":
        part[...] = [b"../../x", b"\xff\xfe", b"\n\x1b[2J", b""][int(rng.integers(4))]
    elif part.dtype.kind == "f":
        part[...] = rng.choice(FLOATS)
    else:
        bounds = np.iinfo(part.dtype)
        part[...] = np.clip(int(rng.choice(EXTREMES)), int(bounds.min), int(bounds.max))
    table[...] = rows


def _attribute(file: h5py.File, name: str, rng: np.random.Generator) -> None:
    values = (
        None, 5, "text of variable length", np.zeros(100, "S600"), np.zeros((3, 3)), file.ref,
        np.bytes_(b"x" * 9000), h5py.Empty("f4"),
    )  # fmt: skip
    value = values[int(rng.integers(len(values)))]
    key = "about" if rng.random() < 0.8 else "seal"
    del file.attrs[key]
    if value is not None:
        file.attrs[key] = value


def _about(raw: bytes, rng: np.random.Generator) -> bytes:
    """A cache that says other things of itself, in as many bytes."""
    record = find_checksum_record(raw)
    assert record is not None
    about = record.byte_ranges["about"]
    text = raw[about.offset : about.end].decode()
    values = (
        "null", "-1", "0", "1e99", "[]", "{}", '""', "NaN", '"../.."', "[[[", '["t1"]', "99999999",
        '"\\u001b[2J"', '"\\ud800"', "true", '{"x": 1}',
    )  # fmt: skip
    keys = re.findall(r'"(\w+)": ', text)
    key = str(rng.choice(keys))
    value = values[int(rng.integers(len(values)))]
    rest = r'(\{.*?\}|\[.*?\]|".*?"|[^,}]*)'
    changed = re.sub(rf'"{key}": {rest}', lambda _: f'"{key}": {value}', text, count=1)
    changed = changed.ljust(len(text))[: len(text)]
    return raw[: about.offset] + changed.encode() + raw[about.end :]


_CRAFTS: tuple[Callable[[h5py.File, str, np.random.Generator], None], ...] = (
    _chunked, _huge, _external, _virtual, _linked, _group, _typed, _reshaped, _values, _values,
    _values, _attribute, _attribute,
)  # fmt: skip


def read(folder: Path) -> None:
    """Reads the cache in a folder."""
    read_cache(folder / "cache.h5")


def read_cache(path: Path) -> None:
    """Everything that is done with a cache. Raises `BratsError` for what cannot be read."""
    cache = open_cache(path)
    for case in range(len(cache.cases)):
        assert 0 < cache.depth(case) < 1 << 16
        assert cache.scheme(case).values
    assert cache.preparation.size == cache.shape[-1]
    verify_rows([cache], 1, lambda done, total: None)
    if len(cache.slices):
        assert cache.images[-1].shape == cache.shape[1:]
        assert cache.masks[-1].shape == (1, *cache.shape[2:])
