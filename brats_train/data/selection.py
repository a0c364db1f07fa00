"""Which rows of which caches, and in which order: pure arithmetic on the tables, no pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.common.text import first_few
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import REGIONS

__all__ = ["ROWS", "RowRule", "RowSet", "case_splits", "rows_by_rule", "select_rows"]


RowRule = Literal["middle", "all", "tumor"]
ROWS: tuple[str, ...] = get_args(RowRule)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSet:
    """Rows of one or several caches, in a fixed order.

    cache  (n,) int64, number of the cache
    row    (n,) int64, row in that cache
    """

    cache: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: np.ndarray | slice) -> RowSet:
        return RowSet(cache=self.cache[index], row=self.row[index])


def case_splits(cache: Cache, fold: int | None) -> np.ndarray:
    """The split of each case, (cases,) of str: the cache's own, or what `fold` makes of it.

    With a fold, its cases validate and all others that are not test train.
    """
    splits = np.char.decode(cache.cases["split"])
    if fold is None:
        return splits
    folds = cache.cases["fold"]
    if fold not in folds:
        raise BratsError(
            f"--fold {fold}: {cache.path} has {folds.max() + 1 if folds.max() >= 0 else 'no'} folds"
            " (numbered from 0). Build it with --folds K."
        )
    return np.where(folds < 0, "test", np.where(folds == fold, "val", "train"))


def select_rows(caches: Sequence[Cache], split: str, rule: str, fold: int | None = None) -> RowSet:
    """The rows of `split` that `rule` ("middle", "all", "tumor") names, caches in order.

    Raises `BratsError` where "middle" is asked of a cache that lacks the middle slice of a case.
    """
    parts = [
        _rows_of(cache, np.flatnonzero(case_splits(cache, fold) == split), rule) for cache in caches
    ]
    return RowSet(
        cache=np.concatenate([np.full(len(rows), index) for index, rows in enumerate(parts)]),
        row=np.concatenate(parts),
    )


def rows_by_rule(cache: Cache, case: int, rule: str) -> np.ndarray:
    """The rows of case number `case` that `rule` names, ascending, (n,) int64."""
    return _rows_of(cache, np.array([case]), rule)


def _rows_of(cache: Cache, cases: np.ndarray, rule: str) -> np.ndarray:
    """The rows of `cases`, numbers in ascending order, that `rule` names; looks at no other row."""
    spans = [cache.row_slice(int(case)) for case in cases]
    ranges = [np.arange(span.start, span.stop) for span in spans]
    rows = np.concatenate([np.zeros(0, np.int64), *ranges])
    slices = cache.slices[rows]
    if rule == "tumor":
        pixels = slices["label_pixels"][:, sorted(REGIONS["wt"])]
        return rows[pixels.any(axis=1)]
    if rule == "middle":
        depths = np.array([cache.depth(int(case)) for case in cases], np.int64)
        is_middle = slices["z"] == np.repeat(depths, [len(part) for part in ranges]) // 2
        missing = np.setdiff1d(cases, slices["case"][is_middle])
        if len(missing):
            names = first_few([cache.cases["id"][case].decode() for case in missing])
            raise BratsError(
                f"{cache.path}: no middle slice of {len(missing)} cases ({names}). Build the cache "
                "with --slices brain, middle or all, or train with --set rows=all."
            )
        return rows[is_middle]
    return rows
