"""Selecting rows of caches by split, fold and rule, from the tables alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import xxhash

from brats_cache.common.errors import BratsError
from brats_cache.common.text import first_few
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import REGIONS

__all__ = [
    "ROWS",
    "Fold",
    "RowRule",
    "RowSet",
    "case_splits",
    "folds_of",
    "rows_by_rule",
    "select_rows",
    "share_of_patients",
]


Fold = int | Literal["all"] | None
RowRule = Literal["middle", "all", "tumor"]
ROWS: tuple[str, ...] = get_args(RowRule)


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSet:
    """A selection of rows of one or several caches, in a fixed order.

    Attributes:
        cache: (n,) int64, the cache of each, as a position in the list of caches.
        row: (n,) int64, the row of each in that cache file.
    """

    cache: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: np.ndarray | slice) -> RowSet:
        return RowSet(cache=self.cache[index], row=self.row[index])


def folds_of(caches: Sequence[Cache]) -> list[int]:
    """The folds that cases are in, ascending."""
    every = np.concatenate([cache.cases["fold"] for cache in caches])
    return np.unique(every[every >= 0]).tolist()


def case_splits(cache: Cache, fold: Fold) -> np.ndarray:
    """The split of each case of a cache.

    Args:
        cache: The cache.
        fold: None for the cache's own split. With a fold, its cases are "val", the cases of other
            folds "train", and those without a fold "test". With "all" folds, of a cross-validation,
            every case of a fold is "val".

    Returns:
        (cases,) str, "train", "val" or "test".

    Raises:
        BratsError: The cache has no such fold.
    """
    splits = np.char.decode(cache.cases["split"])
    if fold is None:
        return splits
    folds = cache.cases["fold"]
    if fold == "all":
        return np.where(folds < 0, "test", "val")
    if fold not in folds:
        raise BratsError(
            f"--fold {fold}: {cache.path} has {folds.max() + 1 if folds.max() >= 0 else 'no'} folds"
            " (numbered from 0). Build it with --folds K."
        )
    return np.where(folds < 0, "test", np.where(folds == fold, "val", "train"))


def select_rows(caches: Sequence[Cache], split: str, rule: str, fold: Fold = None) -> RowSet:
    """Selects the rows of a split, in the order of the caches and of their rows.

    Args:
        caches: One or several caches.
        split: "train", "val" or "test".
        rule: "all" rows of a case, its "middle" slice, or those with "tumor".
        fold: See `case_splits`.

    Raises:
        BratsError: A cache lacks the fold, or with "middle" the middle slice of a case.
    """
    parts = [
        _rows_of(cache, np.flatnonzero(case_splits(cache, fold) == split), rule) for cache in caches
    ]
    return RowSet(
        cache=np.concatenate([np.full(len(rows), index) for index, rows in enumerate(parts)]),
        row=np.concatenate(parts),
    )


def share_of_patients(caches: Sequence[Cache], rows: RowSet, share: float, seed: int) -> RowSet:
    """Keeps the rows of a share of the patients, for learning curves.

    The patients are ordered by the xxh3_64 of "SEED:PATIENT", so that a larger share holds all
    patients of a smaller one.

    Args:
        caches: The caches that `rows` refers to.
        rows: The selected rows.
        share: Above 0, up to 1; of n patients round(share * n) are kept, at least one.
        seed: Decides the order.
    """
    if share == 1 or not len(rows):
        return rows
    patients = np.empty(len(rows), object)
    for number, cache in enumerate(caches):
        here = rows.cache == number
        patients[here] = cache.cases["patient"][cache.slices["case"][rows.row[here]]]
    names = sorted(
        set(patients.tolist()),
        key=lambda name: (xxhash.xxh3_64_intdigest(f"{seed}:{name.decode()}".encode()), name),
    )
    kept = set(names[: max(1, round(share * len(names)))])
    return rows[np.array([name in kept for name in patients.tolist()])]


def rows_by_rule(cache: Cache, case: int, rule: str) -> np.ndarray:
    """Selects rows of case number `case`: (n,) int64 rows of the cache file, ascending."""
    return _rows_of(cache, np.array([case]), rule)


def _rows_of(cache: Cache, cases: np.ndarray, rule: str) -> np.ndarray:
    """The rows of the cache file that `rule` selects of cases, whose numbers are ascending."""
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
            names = first_few([cache.case_id(case) for case in missing])
            raise BratsError(
                f"{cache.path}: no middle slice of {len(missing)} cases ({names}). Build the cache "
                "with --slices brain, middle or all, or train with --set rows=all."
            )
        return rows[is_middle]
    return rows
