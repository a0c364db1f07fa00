"""Labels of whole cases, such as the tumour's grade, for classification beside segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brats_cache.common.errors import BratsError, printable
from brats_cache.common.names import id_key
from brats_cache.common.text import first_few
from brats_cache.discovery.tables import read_csv
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import REGIONS
from brats_train.data.selection import RowSet

__all__ = ["GRADE", "UNLABELLED", "SliceLabels", "grades_of", "label_cases", "slice_labels"]

GRADE = "grade"  # takes the grades that the caches hold
UNLABELLED = -1


def label_cases(source: str, caches: Sequence[Cache]) -> dict[str, str]:
    """Reads the label of each case.

    Args:
        source: "grade", or a CSV file with the columns `case` and `label`; a case that it leaves
            out, or whose cell is blank or NA, has no label.
        caches: The caches; labels of cases that they do not hold are left aside.

    Returns:
        Label by case id, of the cases that have one.

    Raises:
        BratsError: The file cannot be read or is no such table, a case is in two of its lines, or
            no case of the caches has a label.
    """
    if source == GRADE:
        known = grades_of(caches)
        where = f"--classify grade: {printable(caches[0].path)}"
    else:
        known = _read_labels(Path(source))
        where = f"--classify {printable(source)}"
    held = {case for cache in caches for case in cache.case_ids}
    of_key = {id_key(case): label for case, label in known.items() if label}
    labels = {case: of_key[id_key(case)] for case in sorted(held) if id_key(case) in of_key}
    if not labels:
        raise BratsError(
            f"{where}: no case of the caches has a label ({first_few(sorted(held))}). Build from "
            "scans with their name_mapping.csv, or name a CSV with the columns case and label."
        )
    return labels


def grades_of(caches: Sequence[Cache]) -> dict[str, str]:
    """The grade of each case, "" where the caches hold none."""
    return {
        record["id"].decode(): record["grade"].decode()
        for cache in caches
        for record in cache.cases
    }


def _read_labels(path: Path) -> dict[str, str]:
    rows = read_csv(path)
    if not rows or not {"case", "label"} <= set(rows[0].cells):
        raise BratsError(
            f"{printable(path)}: expected the columns case and label, and a line each."
        )
    labels: dict[str, str] = {}
    seen: set[str] = set()
    for row in rows:
        if id_key(row.cells["case"]) in seen:
            raise BratsError(f"{printable(path)}: line {row.line}: {row.cells['case']} again.")
        seen.add(id_key(row.cells["case"]))
        labels[row.cells["case"]] = row.cells["label"]
    return labels


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceLabels:
    """The labels of the selected slices of a training.

    Attributes:
        names: The L labels.
        indices: (n,) int64, positions in `names`; `UNLABELLED` for slices without tumour and of
            cases without a label.
        weights: (L,) float32, what a slice of each label weighs.
    """

    names: tuple[str, ...]
    indices: np.ndarray
    weights: np.ndarray


def slice_labels(
    caches: Sequence[Cache], rows: RowSet, labels: Mapping[str, str], *, is_balanced: bool
) -> SliceLabels:
    """Gives every selected slice the label of its case.

    Args:
        caches: The caches that `rows` refers to.
        rows: The selected rows.
        labels: Label by case id.
        is_balanced: Whether each label has equal weight in total, as in King and Zeng 2001.

    Raises:
        BratsError: The slices have fewer than two different labels.
    """
    by_case = [[labels.get(case, "") for case in cache.case_ids] for cache in caches]
    found = np.full(len(rows), "", object)
    for number, cache in enumerate(caches):
        here = rows.cache == number
        slices = cache.slices[rows.row[here]]
        has_tumor = slices["label_pixels"][:, sorted(REGIONS["wt"])].any(axis=1)
        of_case = np.array([*by_case[number], ""], object)
        found[here] = of_case[np.where(has_tumor, slices["case"].astype(np.int64), -1)]
    names = tuple(sorted(set(found.tolist()) - {""}))
    if len(names) < 2:
        raise BratsError(
            f"--classify: the training slices have {names[0] if names else 'no'} label alone; "
            "expected two different labels at least."
        )
    index_of = {"": UNLABELLED, **{name: index for index, name in enumerate(names)}}
    indices = np.array([index_of[name] for name in found.tolist()], np.int64)
    counts = np.bincount(indices[indices >= 0], minlength=len(names))
    weights = counts.sum() / (len(names) * counts) if is_balanced else np.ones(len(names))
    return SliceLabels(names=names, indices=indices, weights=weights.astype(np.float32))
