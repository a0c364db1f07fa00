"""Describes a plan as text, and compares it with a finished cache."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from brats_cache.build.options import describe_options
from brats_cache.build.plan import Plan
from brats_cache.common.errors import printable
from brats_cache.common.text import (
    aligned_table,
    by_split,
    count_of,
    describe_pixels,
    human_bytes,
)
from brats_cache.format.reader import Cache

__all__ = ["describe_plan", "differences"]


def describe_plan(plan: Plan, out: Path) -> str:
    """Describes a planned cache: cases, splits, rows, pixels, label schemes and size.

    Args:
        plan: The plan.
        out: Path of the cache.

    Returns:
        An aligned table for a terminal.
    """
    splits = Counter(case.split for case in plan.cases)
    rows = Counter[str]()
    for case in plan.cases:
        rows[case.split] += len(case.slices)
    schemes = Counter(case.scheme.name for case in plan.cases if case.survey.case.mask)
    return aligned_table(
        {
            "cache": printable(out),
            "part": f"{plan.shard.index} of {plan.shard.count}" if plan.shard.is_part else "",
            "cases": by_split(len(plan.cases), splits),
            "rows": by_split(plan.num_rows, rows),
            **describe_pixels(plan.options.preparation.size, describe_options(plan.options)),
            "labels": ", ".join(
                f"{name} ({count_of(count, 'case')})" for name, count in sorted(schemes.items())
            ),
            "size": human_bytes(plan.num_bytes),
        }
    )


def differences(plan: Plan, cache: Cache) -> list[str]:
    """Compares a plan with a finished cache.

    Args:
        plan: The plan.
        cache: The cache.

    Returns:
        A line for each difference in options, cases, scans and splits; empty for an identical
        cache.
    """
    found: list[str] = []
    options = describe_options(plan.options)
    for name, wanted in options.items():
        held = cache.options.get(name)
        if _plain(held) != _plain(wanted):
            found.append(f"{name}: {_plain(held)} there, {_plain(wanted)} now")
    if cache.shard != (plan.shard.index, plan.shard.count):
        found.append(f"shard: {cache.shard[0]}/{cache.shard[1]} there, {plan.shard} now")
    held_ids = set(cache.case_ids)
    wanted_ids = {case.id for case in plan.cases}
    removed, added = sorted(held_ids - wanted_ids), sorted(wanted_ids - held_ids)
    found += [f"{name}: in that file, not among the scans now" for name in removed]
    found += [f"{name}: among the scans now, not in that file" for name in added]
    indices = {name: index for index, name in enumerate(cache.case_ids)}
    for case in plan.cases:
        if case.id not in indices:
            continue
        record = cache.cases[indices[case.id]]
        checksums = [source.checksum for source in case.survey.sources]
        if record["source_checksum"][: len(checksums)].tolist() != checksums:
            found.append(f"{case.id}: its scans have changed")
        held = _format_assignment(record["split"].decode(), int(record["fold"]))
        planned = _format_assignment(case.split, case.fold)
        if held != planned:
            found.append(f"{case.id}: {held} there, {planned} now")
    if not found and cache.fingerprint != plan.fingerprint:
        found.append("patients, grades, ages, survival, channels or label schemes")
    return found


def _format_assignment(split: str, fold: int) -> str:
    return split if fold < 0 else f"{split}, fold {fold}"


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
