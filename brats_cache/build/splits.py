"""Which patient trains, validates or is test: a pure function of ids, grades and a seed.

Patients of one grade stand in the order of xxh3_64 of "SEED:PATIENT", and the first of them
validate. That order knows nothing of the other patients, so new ones slip in without shuffling the
rest: only patients at the border between train and val, or between two folds, cross it. Without
grades, one more patient makes at most one other change split. What does move patients is a new
seed, fraction or grade, and a table that gives a person another id. To pin a split altogether, give
it as --split-file.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import xxhash

from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.text import first_few
from brats_cache.discovery.tables import Row, read_csv
from brats_cache.format.schema import SPLITS

__all__ = ["Assignment", "Patient", "assign", "split_table"]


class Patient(NamedTuple):
    """One case as its patient's split sees it.

    case      id of the case
    patient   id of the patient
    grade     "HGG", "LGG" or ""
    has_mask  whether the case has a segmentation
    """

    case: str
    patient: str
    grade: str
    has_mask: bool


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Where a case belongs: one of `SPLITS`, and a fold from 0, -1 where there is none (no folds
    asked for, or test)."""

    split: str
    fold: int


def assign(
    cases: Sequence[tuple[str, str, str, bool]],
    *,
    val_fraction: float = 0.15,
    num_folds: int = 0,
    seed: int = 0,
    split_file: Path | None = None,
    given: Mapping[str, str] | None = None,
) -> tuple[dict[str, Assignment], list[str]]:
    """The split and fold of each case by its id, and warnings.

    cases         `Patient`s, or equal tuples; their order does not matter
    val_fraction  0 up to, not including, 1: round(val_fraction * n) of the n patients validate, at
                  least one of two or more unless it is 0, and never all; by grade in proportion
    num_folds     0 for none, else 2 or more: folds over all patients that are not test, in size and
                  in each grade differing by at most one patient
    split_file    CSV with columns `case,split` (or `patient,split`) instead of `val_fraction`; a
                  column `fold`, where it has one, decides the folds
    given         split by case, where a manifest says so; then every case must have one

    A case without a mask is test, for there is nothing to train on or to compare with. A patient is
    in one split, so such a case takes its patient's other cases along into test, with a warning:
    training on another scan of a patient whose prediction is then called a test would not be one.
    Whoever wants these cases to train leaves the case without a mask out.

    Raises BratsError for impossible numbers, DataFaults for a split file that does not cover every
    case or contradicts itself, the masks, or the patients.
    """
    patients = [Patient(*case) for case in cases]
    if len({patient.case for patient in patients}) < len(patients):
        raise ValueError("a case id occurs twice")
    if not 0 <= val_fraction < 1:
        raise BratsError(f"--val-fraction {val_fraction}: expected 0 up to 1, 1 excluded")
    if num_folds < 0 or num_folds == 1:
        raise BratsError(f"--folds {num_folds}: expected 2 or more, or 0 for none")
    fold_of: dict[str, int] = {}
    if given and not split_file:
        said = {case: Assignment(split=split, fold=-1) for case, split in given.items()}
        split_of, fold_of = _by_table(patients, said, "case", None)
        warnings: list[str] = []
    elif split_file:
        split_of, fold_of, warnings = _from_file(patients, split_file, num_folds)
    else:
        split_of, warnings = _by_fraction(patients, val_fraction, seed)
    if num_folds and not fold_of:
        fold_of = _folds(_strata(patients, split_of, seed), num_folds)
    assignments = {
        one.case: Assignment(split=split_of[one.patient], fold=fold_of.get(one.patient, -1))
        for one in patients
    }
    return assignments, warnings


def _by_fraction(
    patients: Sequence[Patient], val_fraction: float, seed: int
) -> tuple[dict[str, str], list[str]]:
    """The split of each patient, first by masks, then by fraction."""
    split_of = {p.patient: "test" for p in patients if not p.has_mask}
    taken = sorted(p.case for p in patients if p.has_mask and p.patient in split_of)
    warnings = []
    if taken:
        warnings.append(
            f"{first_few(taken)}: test in spite of a segmentation, because "
            "another case of the same patient has none; leave that one out to train on these"
        )
    strata = _strata(patients, split_of, seed)
    num_patients = sum(len(stratum) for stratum in strata)
    num_val = round(val_fraction * num_patients)
    if val_fraction:
        num_val = min(max(num_val, 1), num_patients - 1) if num_patients > 1 else 0
        if num_patients == 1:
            warnings.append("one patient with a segmentation: it trains, and none validates")
    counts = _proportional([len(stratum) for stratum in strata], num_val)
    for stratum, count in zip(strata, counts, strict=True):
        split_of.update(dict.fromkeys(stratum[:count], "val"))
        split_of.update(dict.fromkeys(stratum[count:], "train"))
    return split_of, warnings


def _strata(patients: Sequence[Patient], split_of: Mapping[str, str], seed: int) -> list[list[str]]:
    """The patients that are not test, a list for each grade, each in the order of their hashes.

    A patient whose grade changed between scans counts by the first in the alphabet, HGG.
    """
    grade_of: dict[str, str] = {}
    for one in patients:
        if split_of.get(one.patient) != "test":
            grades = {grade_of.get(one.patient, ""), one.grade} - {""}
            grade_of[one.patient] = min(grades, default="")
    strata: dict[str, list[str]] = defaultdict(list)
    rank = {p: (xxhash.xxh3_64_intdigest(f"{seed}:{p}".encode()), p) for p in grade_of}
    for patient in sorted(grade_of, key=rank.__getitem__):
        strata[grade_of[patient]].append(patient)
    return [strata[grade] for grade in sorted(strata)]


def _proportional(sizes: Sequence[int], total: int) -> list[int]:
    """`total` shared out in proportion to `sizes` by largest remainder, the earlier first where
    remainders are equal; integers throughout, so that no rounding decides."""
    whole = sum(sizes)
    shares = [divmod(size * total, whole) for size in sizes]
    counts = [quotient for quotient, _ in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -shares[i][1])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _folds(strata: Sequence[Sequence[str]], num_folds: int) -> dict[str, int]:
    """The fold of each patient: every stratum is cut into runs of equal length.

    What does not divide goes, one patient a fold, to the folds after those that the stratum before
    filled up, which keeps the totals within one. Runs, unlike dealing in turn, keep most patients
    where they are when one is added.
    """
    num_patients = sum(len(stratum) for stratum in strata)
    if num_patients < num_folds:
        raise BratsError(
            f"--folds {num_folds}: {num_patients} patients to train and validate on; expected at "
            "least one for each fold"
        )
    fold_of: dict[str, int] = {}
    filled = 0
    for stratum in strata:
        length, extra = divmod(len(stratum), num_folds)
        longer = {(filled + i) % num_folds for i in range(extra)}
        filled += extra
        start = 0
        for fold in range(num_folds):
            end = start + length + (fold in longer)
            fold_of.update(dict.fromkeys(stratum[start:end], fold))
            start = end
    return fold_of


def _from_file(
    patients: Sequence[Patient], path: Path, num_folds: int
) -> tuple[dict[str, str], dict[str, int], list[str]]:
    """The split of each patient as a CSV file says, the fold likewise where folds are asked for and
    it has that column, and warnings; raises DataFaults where it cannot be so."""
    rows = read_csv(path)
    column = next((c for c in ("case", "patient") if rows and c in rows[0].cells), "")
    if not column or "split" not in rows[0].cells:
        found = f"columns {', '.join(rows[0].cells)}" if rows else "no rows"
        raise DataFaults([Fault(case="", path=path, found=found, expected="columns case,split")])
    has_folds = num_folds > 0 and "fold" in rows[0].cells
    said = _read_lines(rows, column, path, num_folds if has_folds else 0)
    known = {getattr(one, column).strip() for one in patients}
    extra = [name for name in said if name not in known]
    warnings = [f"{path}: no {column} {first_few(extra)} in the data"] if extra else []
    return *_by_table(patients, said, column, path), warnings


def _by_table(
    patients: Sequence[Patient], said: Mapping[str, Assignment], column: str, path: Path | None
) -> tuple[dict[str, str], dict[str, int]]:
    """The split and fold of each patient as a table says by case or patient; raises DataFaults
    where it leaves a case out or contradicts itself, the masks or the patients."""
    faults = []
    side_of: dict[str, Assignment] = {}
    decided_by: dict[str, str] = {}
    for one in sorted(patients):
        side = said.get(getattr(one, column).strip())
        before = side_of.get(one.patient, side)
        if side is None:
            found, expected = f"no line for {column} {getattr(one, column)}", "one"
        elif not one.has_mask and side.split != "test":
            found, expected = f"{side.split}, but it has no segmentation", "test"
        elif before != side:
            other = decided_by[one.patient]
            found = f"{_say(side)}, but {other} of the same patient {one.patient} is {_say(before)}"
            expected = "one split and fold for one patient"
        else:
            side_of[one.patient] = side
            decided_by.setdefault(one.patient, one.case)
            continue
        faults.append(Fault(case=one.case, path=path, found=found, expected=expected))
    if faults:
        raise DataFaults(faults)
    folds = {p: side.fold for p, side in side_of.items() if side.fold >= 0}
    return {p: side.split for p, side in side_of.items()}, folds


def _read_lines(
    rows: Sequence[Row], column: str, path: Path, num_folds: int
) -> dict[str, Assignment]:
    """Split and fold (where `num_folds` is not 0) of each name; raises DataFaults for lines that
    name none, and for two for one name that differ."""
    said: dict[str, Assignment] = {}
    faults = []
    for row in rows:
        name, split = row.cells[column], row.cells["split"].lower()
        fold = row.cells["fold"] if num_folds and split != "test" else "-1"
        side = Assignment(split=split, fold=int(fold) if _is_fold(fold, num_folds) else -1)
        if not name or split not in SPLITS:
            found = f"line {row.line}: {column} {name!r}, split {row.cells['split']!r}"
            expected = f"a {column}, and one of {', '.join(SPLITS)}"
        elif fold != "-1" and not _is_fold(fold, num_folds):
            found = f"line {row.line}: fold {fold!r}"
            expected = f"0 to {num_folds - 1}, as --folds {num_folds} asks for"
        elif said.setdefault(name, side) != side:
            found = f"line {row.line}: {_say(side)}, but {_say(said[name])} before"
            expected = "one split and fold"
        else:
            continue
        faults.append(Fault(case=name, path=path, found=found, expected=expected))
    if faults:
        raise DataFaults(faults)
    return said


def _is_fold(text: str, num_folds: int) -> bool:
    return text.isascii() and text.isdecimal() and int(text) < num_folds


def _say(side: Assignment | None) -> str:
    assert side is not None
    return side.split if side.fold < 0 else f"{side.split} in fold {side.fold}"


def split_table(side_of: Mapping[str, Assignment]) -> bytes:
    """Where each patient belongs as a CSV file with columns `patient,split`, and `fold` where there
    are folds, in order of the patients: for people to read, and for `--split-file` to pin."""
    has_folds = any(side.fold >= 0 for side in side_of.values())
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["patient", "split", *(["fold"] if has_folds else [])])
    for patient, side in sorted(side_of.items()):
        fold = side.fold if side.fold >= 0 else ""
        writer.writerow([patient, side.split, *([fold] if has_folds else [])])
    return text.getvalue().encode()
