"""Parts of a sharded build: consecutive runs of the sorted cases, each a cache of its own.

The rows of all parts in order are the rows of the whole cache. Parts are built all together on a
cluster (`cluster_job`), or each by a command of its own. By itself, every part finds all cases and
reads all headers and masks, so that all parts come to the same splits and label schemes. It then
reads and writes its own cases only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from brats_cache.common.errors import BratsError, printable

__all__ = ["Shard", "parse_shard"]

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One part of a sharded build; 1 of 1 is the whole.

    Attributes:
        index: Number of the part, 1 to `count`.
        count: Number of parts.
    """

    index: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def is_part(self) -> bool:
        """Whether this is less than the whole."""
        return self.count > 1

    def path_of(self, out: Path) -> Path:
        """Returns the path of this part of cache `out`: brats-2-of-3.h5 for brats.h5."""
        if not self.is_part:
            return out
        return out.with_name(f"{out.stem}-{self.index}-of-{self.count}{out.suffix}")

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Selects the items of this part.

        Args:
            items: The items of all parts, in order.

        Returns:
            A consecutive run of them. The lengths of the parts differ by at most one.

        Example:
            >>> Shard(index=2, count=3).share("abcdefg")
            'cd'
        """
        first, last = (len(items) * i // self.count for i in (self.index - 1, self.index))
        return items[first:last]


def parse_shard(text: str) -> Shard:
    """Parses the value of --shard.

    Args:
        text: "I/N" with I from 1 to N.

    Returns:
        Part I of N.

    Raises:
        BratsError: The text is anything else.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    index, count = (int(part) for part in found.groups()) if found else (0, 0)
    if not 1 <= index <= count:
        raise BratsError(
            f"--shard {printable(text)}: expected I/N with I from 1 to N, such as 2/4."
        )
    return Shard(index=index, count=count)
