"""Reads and writes tables of splits: CSV files with columns `case,split` or `patient,split`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from brats_cache.common.csv_names import csv_text, written_name
from brats_cache.common.errors import DataFaults, Fault
from brats_cache.common.names import id_key
from brats_cache.common.text import first_few
from brats_cache.discovery.tables import Row, read_csv
from brats_cache.format.schema import SPLITS

__all__ = ["Assignment", "SplitCase", "format_splits", "splits_from_file", "splits_from_table"]


class SplitCase(NamedTuple):
    """One case as far as its split depends on it.

    Attributes:
        case: Id of the case.
        patient: Id of the patient.
        grade: "HGG", "LGG" or "".
        has_mask: Whether the case has a segmentation.
    """

    case: str
    patient: str
    grade: str
    has_mask: bool


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The split and fold of a case.

    Attributes:
        split: One of `SPLITS`.
        fold: 0 to K - 1, or -1 for none (without folds, and for test).
    """

    split: str
    fold: int

    def __str__(self) -> str:
        return self.split if self.fold < 0 else f"{self.split} in fold {self.fold}"


def splits_from_file(
    cases: Sequence[SplitCase], path: Path, num_folds: int
) -> tuple[dict[str, str], dict[str, int], list[str]]:
    """Reads the splits of a CSV file.

    Args:
        cases: All cases.
        path: The file.
        num_folds: Number of folds; 0 ignores its column `fold`.

    Returns:
        The split of each patient, the fold of each that has one, and warnings for the user.

    Raises:
        DataFaults: The file is not such a table, or does not fit the cases.
    """
    rows = read_csv(path)
    column = next((c for c in ("case", "patient") if rows and c in rows[0].cells), "")
    if not column or "split" not in rows[0].cells:
        found = f"columns {', '.join(rows[0].cells)}" if rows else "no rows"
        raise DataFaults([Fault(case="", path=path, found=found, expected="columns case,split")])
    has_folds = num_folds > 0 and "fold" in rows[0].cells
    table = _assignments_of_rows(rows, column, path, num_folds if has_folds else 0)
    known = {id_key(getattr(one, column).strip()) for one in cases}
    names = {id_key(row.cells[column]): row.cells[column] for row in rows}
    extra = [name for key, name in names.items() if key not in known]
    warnings = [f"{path}: no {column} {first_few(extra)} in the data"] if extra else []
    return *splits_from_table(cases, table, column, path), warnings


def splits_from_table(
    cases: Sequence[SplitCase], table: Mapping[str, Assignment], column: str, path: Path | None
) -> tuple[dict[str, str], dict[str, int]]:
    """Applies a table of splits.

    Args:
        cases: All cases.
        table: Split and fold by the `id_key` of a case or patient.
        column: Which of them, "case" or "patient".
        path: Where the table comes from, for error messages; None for a manifest.

    Returns:
        The split of each patient, and the fold of each that has one.

    Raises:
        DataFaults: The table leaves a case out, or contradicts itself, the masks or the patients.
    """
    faults = []
    assignment_of: dict[str, Assignment] = {}
    decided_by: dict[str, str] = {}
    for one in sorted(cases):
        assignment = table.get(id_key(getattr(one, column).strip()))
        before = assignment_of.get(one.patient, assignment)
        if assignment is None:
            found, expected = f"no line for {column} {getattr(one, column)}", "one"
        elif not one.has_mask and assignment.split != "test":
            found, expected = f"{assignment.split}, but it has no segmentation", "test"
        elif before != assignment:
            other = decided_by[one.patient]
            found = f"{assignment}, but {other} of the same patient {one.patient} is {before}"
            expected = "one split and fold for one patient"
        else:
            assignment_of[one.patient] = assignment
            decided_by.setdefault(one.patient, one.case)
            continue
        faults.append(Fault(case=one.case, path=path, found=found, expected=expected))
    if faults:
        raise DataFaults(faults)
    folds = {p: assignment.fold for p, assignment in assignment_of.items() if assignment.fold >= 0}
    return {p: assignment.split for p, assignment in assignment_of.items()}, folds


def _assignments_of_rows(
    rows: Sequence[Row], column: str, path: Path, num_folds: int
) -> dict[str, Assignment]:
    """Reads the assignment of each name in `column`, by its `id_key`.

    Folds are read only where `num_folds` is not 0.

    Raises:
        DataFaults: A line is not valid, or contradicts an earlier one.
    """
    table: dict[str, Assignment] = {}
    faults = []
    for row in rows:
        name, split = row.cells[column], row.cells["split"].lower()
        fold = row.cells["fold"] if num_folds and split != "test" else "-1"
        assignment = Assignment(split=split, fold=int(fold) if _is_fold(fold, num_folds) else -1)
        if not name or split not in SPLITS:
            found = f"line {row.line}: {column} {name!r}, split {row.cells['split']!r}"
            expected = f"a {column}, and one of {', '.join(SPLITS)}"
        elif fold != "-1" and not _is_fold(fold, num_folds):
            found = f"line {row.line}: fold {fold!r}"
            expected = f"0 to {num_folds - 1}, as --folds {num_folds} asks for"
        elif table.setdefault(id_key(name), assignment) != assignment:
            found = f"line {row.line}: {assignment}, but {table[id_key(name)]} before"
            expected = "one split and fold"
        else:
            continue
        faults.append(Fault(case=name, path=path, found=found, expected=expected))
    if faults:
        raise DataFaults(faults)
    return table


def _is_fold(text: str, num_folds: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < num_folds


def format_splits(assignment_of: Mapping[str, Assignment]) -> bytes:
    """Formats splits as a CSV file that `--split-file` can read.

    Args:
        assignment_of: Split and fold by patient id.

    Returns:
        Lines `patient,split`, with a column `fold` where there are folds, sorted by patient, UTF-8.
    """
    has_folds = any(assignment.fold >= 0 for assignment in assignment_of.values())
    rows: list[list[object]] = [["patient", "split", *(["fold"] if has_folds else [])]]
    for patient, assignment in sorted(assignment_of.items()):
        fold = assignment.fold if assignment.fold >= 0 else ""
        rows.append([written_name(patient), assignment.split, *([fold] if has_folds else [])])
    return csv_text(rows).encode()
