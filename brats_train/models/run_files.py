"""Where a run directory keeps its checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["checkpoints_of", "fold_folders"]


def fold_folders(run: Path) -> dict[int, Path]:
    """The folders fold0, fold1, ... of a cross-validated run, by their number; ordinarily none."""
    found = {
        int(match[1]): path
        for path in (run.iterdir() if run.is_dir() else ())
        if (match := re.fullmatch("fold(0|[1-9][0-9]*)", path.name)) and path.is_dir()
    }
    return dict(sorted(found.items()))


def checkpoints_of(run: Path, name: str) -> dict[int | None, Path]:
    """The checkpoint of a run, under None, or those of its folds.

    Args:
        run: The run directory.
        name: "best" or "last".
    """
    folds = fold_folders(run)
    if not folds:
        return {None: run / f"{name}.pt"}
    return {fold: folder / f"{name}.pt" for fold, folder in folds.items()}
