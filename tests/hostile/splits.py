"""Tables of splits: the file of --split-file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brats_cache.build.split_tables import Assignment, SplitCase, format_splits, splits_from_file
from brats_cache.format.schema import SPLITS
from tests.hostile.mutations import Files, choose, spoil_table

_PATIENTS = [
    SplitCase(case=f"{name}_{time}", patient=name, grade="", has_mask=name != "d")
    for name, time in (("a", 1), ("a", 2), ("b", 1), ("c", 1), ("d", 1))
]
_TABLES = (
    "patient,split,fold\na,train,0\nb,val,1\nc,train,2\nd,test,\n",
    "case,split\na_1,train\na_2,train\nb_1,val\nc_1,val\nd_1,test\n",
)


def make(rng: np.random.Generator) -> Files:
    """A table of splits."""
    text = choose(rng, _TABLES)
    return {"splits.csv": spoil_table([line.split(",") for line in text.splitlines()], rng)}


def read(folder: Path) -> None:
    """Reads the table; one that is written of its splits holds the same splits."""
    path = folder / "splits.csv"
    splits, folds, _ = splits_from_file(_PATIENTS, path, 3)
    assert set(splits) == {"a", "b", "c", "d"}
    assert set(splits.values()) <= set(SPLITS)
    assert set(folds.values()) <= {0, 1, 2}
    path.write_bytes(
        format_splits({n: Assignment(split=s, fold=folds.get(n, -1)) for n, s in splits.items()})
    )
    assert splits_from_file(_PATIENTS, path, 3)[:2] == (splits, folds)
