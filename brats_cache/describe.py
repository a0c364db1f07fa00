"""What a plan or a cache holds, in words for a terminal of 80 columns and as plain JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import printable
from .labels import REGIONS, canonical_table
from .plan import Plan, describe_options
from .shards import missing_parts
from .store import Cache

__all__ = ["cache_as_json", "describe_cache", "describe_plan", "differences"]

_LABEL_NAMES = ("background", "necrosis", "oedema", "enhancing", "cavity")


def describe_plan(plan: Plan, out: Path) -> str:
    """The cache to be: cases, split, slices, bytes, label schemes."""
    splits = Counter(case.split for case in plan.cases)
    rows = Counter[str]()
    for case in plan.cases:
        rows[case.split] += len(case.slices)
    schemes = Counter(case.scheme.name for case in plan.cases if case.survey.case.mask)
    return _table(
        {
            "cache": printable(out),
            "part": f"{plan.shard.index} of {plan.shard.count}" if plan.shard.is_part else "",
            "cases": _by_split(len(plan.cases), splits),
            "rows": _by_split(plan.num_rows, rows),
            **_describe_pixels(plan.options.preparation.size, describe_options(plan.options)),
            "labels": ", ".join(
                f"{name} ({count} case{'s' if count != 1 else ''})"
                for name, count in sorted(schemes.items())
            ),
            "size": human_bytes(plan.num_bytes),
        }
    )


def describe_cache(parts: Sequence[Cache]) -> str:
    """A finished cache, or parts of one: the same lines, and what the masks hold."""
    cache = parts[0]
    cases = np.concatenate([part.cases for part in parts])
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
    return _table(
        {
            "cache": printable(cache.path) + (" ..." if len(parts) > 1 else ""),
            "parts": _describe_parts(parts),
            "cases": _by_split(len(cases), Counter(names)),
            "patients": str(len(np.unique(cases["patient"]))),
            "rows": _by_split(len(slices), rows),
            **_describe_pixels(cache.shape[-1], dict(cache.options)),
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
    """Everything but the pixels, for programs: the files, and every case of all of them."""
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


def differences(plan: Plan, cache: Cache) -> list[str]:
    """How the build that `plan` describes differs from a finished cache; empty for the same."""
    found: list[str] = []
    options = describe_options(plan.options)
    for name, wanted in options.items():
        held = cache.options.get(name)
        if _plain(held) != _plain(wanted):
            found.append(f"{name}: {_plain(held)} there, {_plain(wanted)} now")
    if cache.shard != (plan.shard.index, plan.shard.count):
        found.append(f"shard: {cache.shard[0]}/{cache.shard[1]} there, {plan.shard} now")
    held_ids = {name.decode() for name in cache.cases["id"]}
    wanted_ids = {case.id for case in plan.cases}
    gone, new = sorted(held_ids - wanted_ids), sorted(wanted_ids - held_ids)
    found += [f"{name}: in that file, not among the scans now" for name in gone]
    found += [f"{name}: among the scans now, not in that file" for name in new]
    rows = {name.decode(): index for index, name in enumerate(cache.cases["id"])}
    for case in plan.cases:
        if case.id not in rows:
            continue
        record = cache.cases[rows[case.id]]
        checksums = [source.checksum for source in case.survey.sources]
        if record["source_checksum"][: len(checksums)].tolist() != checksums:
            found.append(f"{case.id}: its scans have changed")
        held = _side(record["split"].decode(), int(record["fold"]))
        if held != _side(case.split, case.fold):
            found.append(f"{case.id}: {held} there, {_side(case.split, case.fold)} now")
    if not found and cache.fingerprint != plan.fingerprint:
        found.append("patients, grades, ages, survival, channels or label schemes")
    return found


def human_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


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


def _describe_pixels(size: int, options: dict[str, Any]) -> dict[str, str]:
    channels = ", ".join(options["modalities"])
    return {
        "channels": channels,
        "pixels": f"{size} x {size}, {options['fit']}, {options['normalize']}, "
        f"slices: {options['slices']}",
    }


def _side(split: str, fold: int) -> str:
    return split if fold < 0 else f"{split}, fold {fold}"


def _by_split(total: int, counts: Counter[str]) -> str:
    parts = ", ".join(f"{counts[name]} {name}" for name in ("train", "val", "test") if counts[name])
    return f"{total} ({parts})"


def _table(lines: dict[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items() if text)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
