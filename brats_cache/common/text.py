"""Text for a terminal of 80 columns: byte counts, aligned tables, counts by split."""

from __future__ import annotations

from collections import Counter
from typing import Any

__all__ = ["aligned_table", "by_split", "describe_pixels", "human_bytes"]


def human_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def describe_pixels(size: int, options: dict[str, Any]) -> dict[str, str]:
    channels = ", ".join(options["modalities"])
    return {
        "channels": channels,
        "pixels": f"{size} x {size}, {options['fit']}, {options['normalize']}, "
        f"slices: {options['slices']}",
    }


def by_split(total: int, counts: Counter[str]) -> str:
    parts = ", ".join(f"{counts[name]} {name}" for name in ("train", "val", "test") if counts[name])
    return f"{total} ({parts})"


def aligned_table(lines: dict[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines.items() if text)
