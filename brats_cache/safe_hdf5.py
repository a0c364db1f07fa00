"""Reading HDF5 objects that may have been made to mislead: only plain bytes inside the one file.

The library follows links to other files, reads datasets whose bytes lie in other files, and makes
room for whatever size is claimed. Here an object is used only where it is a hard link to contiguous
bytes within the file, of a plain type, and small enough.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5l, h5s, h5t

from .seal import MAX_TABLES, Range

__all__ = ["Misleading", "read_attribute", "read_table", "stored_bytes"]

MAX_ATTRIBUTE = 1 << 20


class Misleading(ValueError):
    """An object that is not what this program writes under its name."""


def read_attribute(file: h5py.File, name: str) -> Any:
    """A scalar attribute of the root: bytes, or a whole number. Raises `Misleading` or KeyError."""
    if not h5a.exists(file.id, name.encode()):
        raise Misleading(f"no attribute {name}")
    attribute = h5a.open(file.id, name.encode())
    kind = attribute.get_type()
    is_text = isinstance(kind, h5t.TypeStringID) and not kind.is_variable_str()
    if not is_text and not isinstance(kind, h5t.TypeIntegerID):
        raise Misleading(f"attribute {name} is neither text of fixed length nor a whole number")
    if attribute.get_space().get_simple_extent_type() != h5s.SCALAR:
        raise Misleading(f"attribute {name} is no single value")
    if kind.get_size() > MAX_ATTRIBUTE:
        raise Misleading(f"attribute {name} has {kind.get_size():,} bytes")
    value = np.empty((), np.dtype(f"S{kind.get_size()}") if is_text else np.dtype("<i8"))
    attribute.read(value)
    return value[()]


def read_table(file: h5py.File, name: str) -> np.ndarray:
    """A whole one-dimensional dataset of a compound type. Raises `Misleading`."""
    dataset = _open(file, name)
    kind = dataset.get_type()
    if not isinstance(kind, h5t.TypeCompoundID) or len(dataset.shape) != 1:
        raise Misleading(f"/{name} is no table")
    num_bytes = dataset.shape[0] * kind.get_size()
    if num_bytes > MAX_TABLES:
        raise Misleading(f"/{name} has {num_bytes:,} bytes")
    _place(file, name, dataset, num_bytes)
    if _has_reference(kind):
        raise Misleading(f"/{name} holds references or text of variable length")
    table = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5s.ALL, h5s.ALL, table)
    return table


def stored_bytes(file: h5py.File, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> Range:
    """Where the bytes of a contiguous dataset of exactly this type and shape lie in the file.
    Raises `Misleading`."""
    dataset = _open(file, name)
    if dataset.shape != shape or dataset.dtype != dtype:
        raise Misleading(f"/{name} is {dataset.dtype} {dataset.shape}, not {dtype} {shape}")
    num_bytes = int(np.prod(shape, dtype=object)) * dtype.itemsize
    return _place(file, name, dataset, num_bytes)


def _open(file: h5py.File, name: str) -> h5d.DatasetID:
    if not file.id.links.exists(name.encode()):
        raise Misleading(f"no /{name}")
    if file.id.links.get_info(name.encode()).type != h5l.TYPE_HARD:
        raise Misleading(f"/{name} is a link to something else")
    dataset = h5py.h5o.open(file.id, name.encode())
    if not isinstance(dataset, h5d.DatasetID):
        raise Misleading(f"/{name} is no dataset")
    return dataset


def _place(file: h5py.File, name: str, dataset: h5d.DatasetID, num_bytes: int) -> Range:
    creation = dataset.get_create_plist()
    offset = dataset.get_offset()
    if creation.get_layout() != h5d.CONTIGUOUS or creation.get_external_count() or offset is None:
        raise Misleading(f"/{name} is not contiguous within the file")
    if offset + num_bytes > file.id.get_filesize():
        raise Misleading(f"/{name} ends beyond the file")
    return Range(offset=int(offset), num_bytes=num_bytes)


def _has_reference(kind: h5t.TypeID) -> bool:
    """Whether a type holds pointers: object references, variable-length text or sequences."""
    if isinstance(kind, h5t.TypeCompoundID):
        return any(_has_reference(kind.get_member_type(i)) for i in range(kind.get_nmembers()))
    if isinstance(kind, h5t.TypeArrayID):
        return _has_reference(kind.get_super())
    if isinstance(kind, h5t.TypeStringID):
        return bool(kind.is_variable_str())
    return not isinstance(kind, h5t.TypeIntegerID | h5t.TypeFloatID)
