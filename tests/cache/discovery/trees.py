"""Trees of files with content of their own, which is all that finding cases looks at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from brats_cache.discovery.cases import Case, Findings

FOUR = ("t1", "t1ce", "t2", "flair")


def add_files(root: Path, *names: str) -> Path:
    """Files below `root`, each with content of its own."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return root


def add_scans(root: Path, prefix: str, words: Iterable[str] = (*FOUR, "seg")) -> Path:
    """Files `<prefix><word>.nii.gz` below `root`."""
    return add_files(root, *(f"{prefix}{word}.nii.gz" for word in words))


def only_case(found: Findings) -> Case:
    """The one case of findings without a fault."""
    assert found.faults == ()
    (case,) = found.cases
    return case


def patients(found: Findings) -> dict[str, str]:
    """The patient of each case."""
    assert found.faults == ()
    return {case.id: case.patient for case in found.cases}
