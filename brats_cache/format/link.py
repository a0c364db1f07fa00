"""One HDF5 file over several caches, for users of h5py: virtual datasets that hold no pixel.

`/images` and `/masks` of a link show the rows of its parts one after another, read through the
library from the parts themselves; the tables are small and are copied, their indices shifted.
Training takes the parts, which it can map into memory.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from brats_cache.common.errors import BratsError, printable
from brats_cache.common.files import write_atomically
from brats_cache.format.cache_set import as_sets, check_compatible
from brats_cache.format.reader import LINK_MARK, Cache, open_cache
from brats_cache.format.schema import join_cases

__all__ = ["write_link"]

_MAX_NAMES = 1 << 15  # bytes of the parts' names: an attribute, which is read from the first bytes


def write_link(paths: Sequence[Path], out: Path, *, overwrite: bool) -> list[Cache]:
    """Writes a link over several caches.

    Args:
        paths: The caches, which are named relative to `out`, so that all may be moved together.
        out: The file to write.
        overwrite: Replace an existing file.

    Returns:
        The caches in the order of the link: parts of one build in their order.

    Raises:
        BratsError: `out` exists and is not to be replaced, or is one of the parts; or the parts do
            not fit together.
    """
    if out.exists() and not overwrite:
        raise BratsError(f"{printable(out)}: exists. Replace it with --overwrite.")
    caches = [
        cache for members in as_sets([open_cache(path) for path in paths]) for cache in members
    ]
    if any(out.exists() and os.path.samefile(out, cache.path) for cache in caches):
        raise BratsError(f"{printable(out)}: is one of the parts. Choose another --out.")
    check_compatible(caches)
    names = [os.path.relpath(cache.path.resolve(), out.parent.resolve()) for cache in caches]
    mark = LINK_MARK + json.dumps(names).encode()
    if len(mark) > _MAX_NAMES:
        raise BratsError(f"{printable(out)}: the names of its {len(caches)} parts are too long.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BratsError(f"{printable(out)}: cannot be written ({error.strerror}).") from error
    content = io.BytesIO()  # the library can crash where a write fails, and memory holds the tables
    with h5py.File(content, "w") as file:
        file.attrs["link"] = np.bytes_(mark)
        _fill(file, caches, names)
    write_atomically(out, content.getvalue())
    return caches


def _fill(file: h5py.File, caches: Sequence[Cache], names: Sequence[str]) -> None:
    """Makes the virtual datasets and the tables."""
    num_rows = sum(cache.shape[0] for cache in caches)
    _, channels, size, _ = caches[0].shape
    for dataset, dtype, depth in (("images", "<f2", channels), ("masks", "u1", 1)):
        layout = h5py.VirtualLayout((num_rows, depth, size, size), dtype)
        first = 0
        for cache, name in zip(caches, names, strict=True):
            # In the name of a source the library replaces what follows a per cent sign.
            source = h5py.VirtualSource(
                name.replace("%", "%%"), dataset, (cache.shape[0], depth, size, size), dtype
            )
            layout[first : first + cache.shape[0]] = source
            first += cache.shape[0]
        file.create_virtual_dataset(dataset, layout)
    file["cases"], file["slices"] = _tables(caches)
    modalities = caches[0].preparation.modalities
    file.attrs["modalities"] = np.array(modalities, "S")


def _tables(caches: Sequence[Cache]) -> tuple[np.ndarray, np.ndarray]:
    """Both tables of all parts, with row and case indices of the link."""
    cases, slices = [], []
    first_row = first_case = 0
    for cache in caches:
        part, rows = cache.cases.copy(), cache.slices.copy()
        part["first_row"] += first_row
        rows["case"] += first_case
        cases.append(part)
        slices.append(rows)
        first_row += len(rows)
        first_case += len(part)
    return join_cases(cases), np.concatenate(slices)
