"""Describes what a cache holds, in text for a terminal of 80 columns and as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from brats_cache.common.errors import printable
from brats_cache.common.text import aligned_table, by_split, describe_pixels, human_bytes
from brats_cache.format.cache_set import missing_parts
from brats_cache.format.reader import Cache
from brats_cache.format.schema import join_cases
from brats_cache.imaging.labels import REGIONS, canonical_table

__all__ = ["cache_as_json", "describe_cache"]

_LABEL_NAMES = ("background", "necrosis", "oedema", "enhancing", "cavity")


def describe_cache(parts: Sequence[Cache]) -> str:
    """Describes a finished cache, or parts of one, a line for each property."""
    cache = parts[0]
    cases = join_cases([part.cases for part in parts])
    slices = np.concatenate([part.slices for part in parts])
    names = [split.decode() for split in cases["split"]]
    rows = Counter[str]()
    for split, count in zip(names, cases["rows"], strict=True):
        rows[split] += int(count)
    pixels = slices["label_pixels"]
    total = max(1, int(slices["brain_pixels"].sum()))
    shares = ", ".join(
        f"{name} {int(pixels[:, label].sum()) / total:.1%}"
        for label, name in enumerate(_LABEL_NAMES)
        if label and pixels[:, label].any()
    )
    tumour = int(np.count_nonzero(pixels[:, sorted(REGIONS["wt"])].any(axis=1)))
    return aligned_table(
        {
            "cache": printable(cache.path) + (" ..." if len(parts) > 1 else ""),
            "parts": _describe_parts(parts),
            "cases": by_split(len(cases), Counter(names)),
            "patients": str(len(np.unique(cases["patient"]))),
            "rows": by_split(len(slices), rows),
            **describe_pixels(cache.shape[-1], dict(cache.options)),
            "labels": ", ".join(sorted({name.decode() for name in cases["label_scheme"]})),
            "tumour": f"in {tumour} rows" if shares else "no mask",
            "of brains": shares,
            "grades": ", ".join(
                f"{count} {grade.decode() or 'unknown'}"
                for grade, count in sorted(Counter(cases["grade"].tolist()).items())
            ),
            "size": human_bytes(sum(part.path.stat().st_size for part in parts)),
            "fingerprint": cache.fingerprint if len(parts) == 1 else "",
            "of the set": cache.set_fingerprint if cache.shard[1] > 1 else "",
            "writer": printable(cache.writer),
        }
    )


def _describe_parts(parts: Sequence[Cache]) -> str:
    """Which parts of a set these are, and which are missing; nothing for a cache that is none."""
    count = parts[0].shard[1]
    if count == 1:
        return ""
    missing = missing_parts(parts)
    held = _listed([part.shard[0] for part in parts])
    return f"{held} of {count}" + (f"; missing {_listed(missing)}" if missing else ", all there")


def _listed(numbers: Sequence[int]) -> str:
    """[1, 2, 3, 7] -> "1 to 3, 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def cache_as_json(caches: Sequence[Cache]) -> dict[str, Any]:
    """Returns everything but the pixels, for programs: the files, and every case of all of them."""
    return {
        "files": [
            {
                "path": str(cache.path),
                "shape": list(cache.shape),
                "modalities": list(cache.preparation.modalities),
                "options": dict(cache.options),
                "fingerprint": cache.fingerprint,
                "set_fingerprint": cache.set_fingerprint,
                "shard": f"{cache.shard[0]}/{cache.shard[1]}",
                "writer": cache.writer,
                "bytes": cache.path.stat().st_size,
            }
            for cache in caches
        ],
        "cases": [
            _case_as_json(cache, index) for cache in caches for index in range(len(cache.cases))
        ],
    }


def _case_as_json(cache: Cache, index: int) -> dict[str, Any]:
    record = cache.cases[index]
    has_mask = bool(record["has_mask"])
    counts = record["native_voxel_counts"]
    table = canonical_table(cache.scheme(index))
    canonical = Counter[int]()
    for value, count in enumerate(counts.tolist()):
        if count:
            canonical[int(table[value])] += count
    return {
        "id": record["id"].decode(),
        "patient": record["patient"].decode(),
        "split": record["split"].decode(),
        "fold": int(record["fold"]),
        "grade": record["grade"].decode(),
        "has_mask": has_mask,
        "first_row": int(record["first_row"]),
        "rows": int(record["rows"]),
        "native_shape": record["native_shape"].tolist(),
        "orientation": record["orientation"].decode(),
        "affine": record["affine"].tolist(),
        "native_voxel_counts": {
            str(value): int(count) for value, count in enumerate(counts) if count and value
        },
        "canonical_voxel_counts": {
            str(label): count for label, count in sorted(canonical.items()) if label
        },
        "scheme": record["label_scheme"].decode(),
        "checksum": f"{int(record['checksum']):016x}",
    }
