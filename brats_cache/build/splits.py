"""Assigns patients to splits and folds: a pure function of ids, grades and a seed.

The patients of one grade are ordered by the xxh3_64 of "SEED:PATIENT", and the first of them are
the validation set. A patient's hash does not depend on the other patients, so adding patients only
moves those at the border between train and val, or between two folds; without grades, one more
patient changes the split of at most one other. Patients do move with a new seed, fraction or grade,
and where a table gives a patient another id. `--split-file` fixes a split for good.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import xxhash

from brats_cache.build.split_tables import (
    Assignment,
    SplitCase,
    splits_from_file,
    splits_from_table,
)
from brats_cache.common.errors import BratsError
from brats_cache.common.names import id_key
from brats_cache.common.text import first_few

__all__ = ["assign"]


def assign(
    cases: Sequence[SplitCase],
    *,
    val_fraction: float = 0.15,
    num_folds: int = 0,
    seed: int = 0,
    split_file: Path | None = None,
    given: Mapping[str, str] | None = None,
) -> tuple[dict[str, Assignment], list[str]]:
    """Assigns every case to a split and a fold, the cases of one patient to the same.

    A case without a mask is test, as there is nothing to train on or to compare with. All other
    cases of its patient become test with it, with a warning, because a model tested on a patient
    must not have been trained on another scan of the same one. To train on them, leave out the case
    without a mask.

    Args:
        cases: All cases, in any order.
        val_fraction: 0 up to, not including, 1. Of n patients round(val_fraction * n) validate, in
            proportion to the grades; of two or more patients at least one, unless the fraction is
            0, and never all.
        num_folds: 0 for none, else 2 or more. All patients that are not test are divided into folds
            whose sizes, in total and for each grade, differ by at most one patient.
        seed: Seed of the order of the patients.
        split_file: CSV file with columns `case,split` or `patient,split` that replaces
            `val_fraction`; its column `fold`, if any, decides the folds.
        given: Split by case id from a manifest; empty, or with an entry for every case. Not used
            with a `split_file`.

    Returns:
        The split and fold of each case by its id, and warnings for the user.

    Raises:
        BratsError: `val_fraction` or `num_folds` is impossible.
        DataFaults: A table leaves a case out, or contradicts itself, the masks, or the patients.
        ValueError: A case id occurs twice.
    """
    if len({one.case for one in cases}) < len(cases):
        raise ValueError("a case id occurs twice")
    if not 0 <= val_fraction < 1:
        raise BratsError(f"--val-fraction {val_fraction}: expected 0 up to 1, 1 excluded")
    if num_folds < 0 or num_folds == 1:
        raise BratsError(f"--folds {num_folds}: expected 2 or more, or 0 for none")
    fold_of: dict[str, int] = {}
    if given and not split_file:
        table = {id_key(case): Assignment(split=split, fold=-1) for case, split in given.items()}
        split_of, fold_of = splits_from_table(cases, table, "case", None)
        warnings: list[str] = []
    elif split_file:
        split_of, fold_of, warnings = splits_from_file(cases, split_file, num_folds)
    else:
        split_of, warnings = _by_fraction(cases, val_fraction, seed)
    if num_folds and not fold_of:
        fold_of = _folds(_strata(cases, split_of, seed), num_folds)
    assignments = {
        one.case: Assignment(split=split_of[one.patient], fold=fold_of.get(one.patient, -1))
        for one in cases
    }
    return assignments, warnings


def _by_fraction(
    cases: Sequence[SplitCase], val_fraction: float, seed: int
) -> tuple[dict[str, str], list[str]]:
    """Splits the patients by masks and fraction; returns warnings as well."""
    split_of = {one.patient: "test" for one in cases if not one.has_mask}
    taken = sorted(one.case for one in cases if one.has_mask and one.patient in split_of)
    warnings = []
    if taken:
        warnings.append(
            f"{first_few(taken)}: test in spite of a segmentation, because "
            "another case of the same patient has none; leave that one out to train on these"
        )
    strata = _strata(cases, split_of, seed)
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


def _strata(cases: Sequence[SplitCase], split_of: Mapping[str, str], seed: int) -> list[list[str]]:
    """Lists the patients that are not test by grade, each list in the order of their hashes.

    A patient whose grade changed between scans counts as the alphabetically first grade, HGG.
    """
    grade_of: dict[str, str] = {}
    for one in cases:
        if split_of.get(one.patient) != "test":
            grades = {grade_of.get(one.patient, ""), one.grade} - {""}
            grade_of[one.patient] = min(grades, default="")
    strata: dict[str, list[str]] = defaultdict(list)
    rank = {p: (xxhash.xxh3_64_intdigest(f"{seed}:{p}".encode()), p) for p in grade_of}
    for patient in sorted(grade_of, key=rank.__getitem__):
        strata[grade_of[patient]].append(patient)
    return [strata[grade] for grade in sorted(strata)]


def _proportional(sizes: Sequence[int], total: int) -> list[int]:
    """Divides `total` in proportion to `sizes` by the largest-remainder method.

    Equal remainders favour the earlier size. Integer arithmetic avoids rounding errors.
    """
    whole = sum(sizes)
    shares = [divmod(size * total, whole) for size in sizes]
    counts = [quotient for quotient, _ in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda i: -shares[i][1])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _folds(strata: Sequence[Sequence[str]], num_folds: int) -> dict[str, int]:
    """Assigns patients to folds by cutting every stratum into consecutive runs of equal length.

    The remainder of a stratum goes, one patient each, to the folds after those that got the
    remainder of the stratum before; so the sizes of the folds differ by at most one. Consecutive
    runs, unlike round-robin, keep most patients in their fold when a patient is added.
    """
    num_patients = sum(len(stratum) for stratum in strata)
    if num_patients < num_folds:
        raise BratsError(
            f"--folds {num_folds}: {num_patients} patients to train and validate on; expected at "
            "least one for each fold"
        )
    fold_of: dict[str, int] = {}
    num_extra = 0  # patients that did not divide, so far
    for stratum in strata:
        length, extra = divmod(len(stratum), num_folds)
        longer = {(num_extra + i) % num_folds for i in range(extra)}
        num_extra += extra
        start = 0
        for fold in range(num_folds):
            end = start + length + (fold in longer)
            fold_of.update(dict.fromkeys(stratum[start:end], fold))
            start = end
    return fold_of
