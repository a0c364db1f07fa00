"""Parts of one cache built apart: by the jobs of a SLURM array, or on several machines.

Every part finds all cases and reads all headers and masks, so that each decides the same split and
the same label schemes, and then reads and writes its own cases only. Parts hold contiguous runs of
the cases in their order, so the parts one after another are the rows of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from brats_cache.common.errors import BratsError, printable

__all__ = ["Shard", "parse_shard"]

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part `index`, from 1, of `count`."""

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def is_part(self) -> bool:
        return self.count > 1

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This part's run of `items`; the runs of all parts are the whole, in order, and differ in
        length by at most one."""
        first, last = (len(items) * i // self.count for i in (self.index - 1, self.index))
        return items[first:last]


def parse_shard(text: str) -> Shard:
    """`"2/4"` -> the second of four. Raises `BratsError` for anything else."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    index, count = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= index <= count:
        raise BratsError(
            f"--shard {printable(text)}: expected I/N with I from 1 to N, such as 2/4."
        )
    return Shard(index=index, count=count)
