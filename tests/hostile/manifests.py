"""Manifests: the table of --manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from brats_cache.common.errors import DataFaults
from brats_cache.discovery.manifest import MANIFEST_COLUMNS, manifest_table, read_manifest
from tests.hostile.mutations import Files, spoil_table

_ROLES = ("t1", "t1ce", "t2", "flair", "seg")
_ROWS = [
    list(MANIFEST_COLUMNS),
    ["a_1", "a", "1", *(f"a_{role}.nii" for role in _ROLES), "train", "HGG", "brats2017"],
    ["b_1", "b", "1", "b.nii#0", "b.nii#1", "b.nii#2", "b.nii#3", "b_seg.nii", "test", "", ""],
]
_SCANS = (*(f"a_{role}.nii" for role in _ROLES), "b.nii", "b_seg.nii")


def make(rng: np.random.Generator) -> Files:
    """A manifest and the files it names, which nobody opens here."""
    return {"manifest.csv": spoil_table(_ROWS, rng), **dict.fromkeys(_SCANS, b"")}


def read(folder: Path) -> None:
    """Reads the manifest; one that is written of its cases holds the same cases."""
    path = folder / "manifest.csv"
    found = read_manifest(path)
    if found.faults:
        raise DataFaults(found.faults)
    path.write_bytes(manifest_table(found.cases, folder, {}))
    again = read_manifest(path)
    assert not again.faults, again.faults
    assert again.cases == found.cases
