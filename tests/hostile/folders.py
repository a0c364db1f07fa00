"""Folders of scans with names that nobody expects."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from brats_cache.common.errors import DataFaults
from brats_cache.discovery.cases import find_cases
from tests.hostile.mutations import CELLS, Files, choose

_NAMES = ("BraTS20_Training_001", "BraTS-GLI-00001-000", "sub-01_ses-1", "UCSF-PDGM-0004", "Pat 1")
_ROLES = ("t1", "t1ce", "t2", "flair", "seg", "T1w", "ce-gd_T1w", "t1n", "t1c", "t2w", "0000")
_ODD = (
    *(cell for cell in CELLS if cell and "/" not in cell and "\0" not in cell and len(cell) < 100),
    *("\udcff", "\udcc3(", "\n", "\t", "-", "--help", "~", "$HOME", "*", "é", "e\u0301", "." * 50),
    *("x" * 230, "İ", "ß", "ﬁ", "\u200b", "CON", ".nii", "seg", "mask", "t1", "%s", "{case}"),
)


def make(rng: np.random.Generator) -> Files:
    """One to three case folders of empty files."""
    files: Files = {}
    for _ in range(int(rng.integers(1, 4))):
        case = _odd(choose(rng, _NAMES), rng)
        folder = _odd(choose(rng, (case, case, "HGG", "images")), rng)
        for role in _ROLES[:5] if rng.random() < 0.6 else rng.permutation(_ROLES)[:6]:
            end = choose(rng, (".nii", ".nii.gz", ".nii.gz", ".NII.GZ", ".csv"))
            name = _odd(f"{case}_{role}", rng, 0.1) + end
            if all(0 < len(os.fsencode(part)) < 256 for part in (folder, name)):
                files[f"{folder}/{name}"] = b""
    return files


def _odd(name: str, rng: np.random.Generator, chance: float = 0.4) -> str:
    """A name with something odd in it, or the name itself."""
    if rng.random() > chance:
        return name
    place = int(rng.integers(len(name) + 1))
    name = name[:place] + choose(rng, _ODD) + name[place:]
    return name if name not in (".", "..") else "_"


def read(folder: Path) -> None:
    """Finds the cases."""
    found = find_cases([folder], None)
    if found.faults:
        raise DataFaults(found.faults)
    for case in found.cases:
        assert str(case.id).encode()
