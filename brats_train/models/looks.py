"""What the training scans of a model looked like: a few numbers a scan, kept in its description.

Sizes, and percentiles of standardised values: no anatomy and no name, though who holds a scan can
tell whether it is among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["MAX_LOOKS", "PERCENTILES", "ScanLook", "pool_looks", "unpack_look"]

MAX_LOOKS = 48  # 14 kB of JSON for four modalities
PERCENTILES = (2, 10, 25, 50, 75, 90, 98)


@dataclass(frozen=True, kw_only=True)
class ScanLook:
    """How one scan looks, see `inference.scan_look.look_of`.

    Attributes:
        spacing_mm: Size of a voxel along Z, Y, X.
        field_mm: Field of view along Z, Y, X.
        brain_share: Share of the middle slices that is not background, 0 to 1.
        percentiles: `PERCENTILES` of each of C modalities in the middle of the head, where its mean
            is 0 and its standard deviation 1.
        correlations: Of each pair of modalities there, in the order of `itertools.combinations`.
    """

    spacing_mm: tuple[float, ...]
    field_mm: tuple[float, ...]
    brain_share: float
    percentiles: tuple[tuple[float, ...], ...]
    correlations: tuple[float, ...]


def pool_looks(groups: Iterable[Sequence[ScanLook]]) -> tuple[ScanLook, ...]:
    """The looks of several models that are averaged, each once; at most `MAX_LOOKS`, evenly."""
    every = list(dict.fromkeys(look for group in groups for look in group))
    chosen = np.linspace(0, len(every) - 1, min(len(every), MAX_LOOKS)).round().astype(int)
    return tuple(every[index] for index in chosen)


def unpack_look(packed: Mapping[str, Any], num_modalities: int) -> ScanLook:
    """Reads what `asdict` gave.

    Raises:
        KeyError, TypeError, ValueError: It is anything else, or of other modalities.
    """
    look = ScanLook(
        spacing_mm=_numbers(packed["spacing_mm"], 3),
        field_mm=_numbers(packed["field_mm"], 3),
        brain_share=_numbers([packed["brain_share"]], 1)[0],
        percentiles=tuple(_numbers(one, len(PERCENTILES)) for one in packed["percentiles"]),
        correlations=_numbers(packed["correlations"], num_modalities * (num_modalities - 1) // 2),
    )
    if len(look.percentiles) != num_modalities or min(*look.spacing_mm, *look.field_mm) <= 0:
        raise ValueError("a look of no scan of this model")
    return look


def _numbers(values: Sequence[Any], count: int) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{count} finite numbers expected")
    return numbers
