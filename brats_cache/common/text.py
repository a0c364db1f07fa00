"""Text for a terminal of 80 columns: byte counts, aligned tables, counts by split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "aligned_table",
    "by_split",
    "count_by_kind",
    "count_of",
    "describe_pixels",
    "first_few",
    "human_bytes",
]


def human_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def describe_pixels(size: int, options: dict[str, Any]) -> dict[str, str]:
    """Two lines of a description: the channels, and how their pixels were made."""
    channels = ", ".join(options["modalities"])
    return {
        "channels": channels,
        "pixels": f"{size} x {size}, {options['fit']}, {options['normalize']}, "
        f"slices: {options['slices']}",
    }


def by_split(total: int, counts: Counter[str]) -> str:
    """ "9 (7 train, 2 val)" from the total and the count of each split."""
    parts = ", ".join(f"{counts[name]} {name}" for name in ("train", "val", "test") if counts[name])
    return f"{total} ({parts})"


def aligned_table(lines: dict[str, str]) -> str:
    """A line for each entry that has a text, the texts aligned."""
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items() if text)


def count_of(number: int, noun: str) -> str:
    """1, "case" -> "1 case"; 2, "case" -> "2 cases"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def first_few(names: Sequence[object], num_shown: int = 5, separator: str = ", ") -> str:
    """Lists the first names and how many more there are.

    Args:
        names: Names or lines.
        num_shown: At most so many of them.
        separator: Put between two; where it breaks the line, the number of others has its own line.

    Example:
        >>> first_few("abcdefg", 3)
        'a, b, c and 4 more'
    """
    more = len(names) - num_shown
    text = separator.join(str(name) for name in names[:num_shown])
    last = separator if "\n" in separator else " "
    return f"{text}{last}and {more} more" if more > 0 else text


def count_by_kind(warnings: Iterable[tuple[str, Iterable[str]]], num_cases: int) -> list[str]:
    """A line for each kind of warning: "no mask: 3 of 9 cases (a, b, c)".

    Args:
        warnings: Id of a case and the kinds of warning that apply to it.
        num_cases: Number of all cases.

    Returns:
        A line for each kind, in order of the kinds.
    """
    cases: dict[str, list[str]] = {}
    for case, kinds in warnings:
        for kind in kinds:
            cases.setdefault(kind, []).append(case)
    return [
        f"{kind}: {len(ids)} of {num_cases} cases ({first_few(sorted(ids), 3)})"
        for kind, ids in sorted(cases.items())
    ]
