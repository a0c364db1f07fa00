"""Record types of the tables in a cache file. docs/cache-format.md describes every field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from brats_cache.imaging.labels import LABELS

__all__ = ["NUM_LABELS", "SLICE_DTYPE", "SPLITS", "TEXT_FIELDS", "case_dtype", "join_cases"]

NUM_LABELS = len(LABELS)  # canonical ones; source values of every known scheme fit as well
SLICE_DTYPE = np.dtype(
    [("case", "<i4"), ("z", "<i4"), ("brain_pixels", "<i4"), ("label_pixels", "<i4", NUM_LABELS)]
)
TEXT_FIELDS = ("id", "patient", "label_scheme", "survival", "source_name")


def case_dtype(lengths: Mapping[str, int], num_modalities: int) -> np.dtype:
    """Makes the type of a record of `/cases`.

    Args:
        lengths: Bytes of each of `TEXT_FIELDS`.
        num_modalities: C.
    """
    num_sources = num_modalities + 1
    return np.dtype(
        [
            ("id", f"S{lengths['id']}"),
            ("patient", f"S{lengths['patient']}"),
            ("split", "S5"),
            ("fold", "<i4"),
            ("grade", "S3"),
            ("age", "<f4"),
            ("survival", f"S{lengths['survival']}"),
            ("has_mask", "u1"),
            ("first_row", "<i8"),
            ("rows", "<i8"),
            ("native_shape", "<i4", 3),
            ("affine", "<f8", (4, 4)),
            ("orientation", "S3"),
            ("label_scheme", f"S{lengths['label_scheme']}"),
            ("native_voxel_counts", "<i8", NUM_LABELS),
            ("center", "<f8", (num_modalities,)),
            ("scale", "<f8", (num_modalities,)),
            ("data_dir", "<i4"),
            ("source_name", f"S{lengths['source_name']}", (num_sources,)),
            ("source_bytes", "<i8", (num_sources,)),
            ("source_checksum", "<u8", (num_sources,)),
            ("checksum", "<u8"),
        ]
    )


def join_cases(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Puts the `/cases` of caches of as many modalities into one table, the first one's rows first.

    Each text is as long as the longest needs. Not by np.concatenate: where texts of a field of
    several differ in length, numpy (2.4) makes records that are shorter than their fields, and
    writes beyond its memory.
    """
    fields = [
        (name, max((table.dtype[name] for table in tables), key=lambda kind: kind.itemsize))
        for name in tables[0].dtype.names or ()
    ]
    joined = np.empty(sum(map(len, tables)), np.dtype(fields))
    for name, _ in fields:
        joined[name] = np.concatenate([table[name] for table in tables])
    return joined


SPLITS = ("train", "val", "test")
