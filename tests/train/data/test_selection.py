"""Rows by rule: the rows that looking at every row of the cache would name."""

from __future__ import annotations

import numpy as np
import pytest

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_train.data.selection import (
    case_splits,
    rows_by_rule,
    select_rows,
    share_of_patients,
)


def rows_one_by_one(cache: Cache, cases: set[int], rule: str) -> list[int]:
    rows = []
    for row, record in enumerate(cache.slices):
        is_middle = record["z"] == cache.depth(int(record["case"])) // 2
        has_tumour = record["label_pixels"][1:4].any()
        is_named = {"all": True, "middle": is_middle, "tumor": has_tumour}[rule]
        if record["case"] in cases and is_named:
            rows.append(row)
    return rows


@pytest.mark.parametrize("rule", ["all", "middle", "tumor"])
def test_rows_are_those_that_the_rule_names(cache: Cache, rule: str) -> None:
    for case in range(len(cache.cases)):
        assert rows_by_rule(cache, case, rule).tolist() == rows_one_by_one(cache, {case}, rule)
    for split in ("train", "val", "test"):
        cases = set(np.flatnonzero(case_splits(cache, None) == split).tolist())
        assert select_rows([cache], split, rule).row.tolist() == rows_one_by_one(cache, cases, rule)


def test_the_rows_of_a_case_are_found_without_looking_at_others(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else evaluation takes time that grows with the square of the number of cases."""
    asked: list[int] = []
    depth = Cache.depth
    monkeypatch.setattr(Cache, "depth", lambda self, case: asked.append(case) or depth(self, case))
    rows_by_rule(cache, 1, "middle")
    assert asked == [1]


def test_a_middle_slice_that_is_missing_is_named(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = Cache.depth
    monkeypatch.setattr(Cache, "depth", lambda self, case: 10 * depth(self, case))
    with pytest.raises(BratsError, match=f"{cache.cases['id'][0].decode()}.*--slices"):
        rows_by_rule(cache, 0, "middle")


def test_a_larger_share_of_the_patients_holds_all_of_a_smaller_one(cache: Cache) -> None:
    rows = select_rows([cache], "train", "all")
    patients = cache.cases["patient"][cache.slices["case"][rows.row]]
    num_patients, before = len(np.unique(patients)), set[int]()
    for share in (0.01, 0.5, 0.8, 1.0):
        kept = share_of_patients([cache], rows, share, seed=2)
        names = np.unique(cache.cases["patient"][cache.slices["case"][kept.row]])
        assert len(names) == max(1, round(share * num_patients))
        assert kept.row.tolist() == rows.row[np.isin(patients, names)].tolist()
        assert before <= set(kept.row.tolist())
        before = set(kept.row.tolist())
