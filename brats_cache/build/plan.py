"""Plans a cache before a byte is written: the rows, split, fold and label scheme of every case.

An HDF5 dataset of contiguous layout cannot grow, so the plan fixes everything in advance: which
slice of which case is stored in which row, the size of the file, and a fingerprint of all that
decides its content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xxhash

from brats_cache.build.options import BuildOptions, describe_options
from brats_cache.build.plan_warnings import plan_warnings
from brats_cache.build.schemes import detect_schemes
from brats_cache.build.shards import Shard
from brats_cache.build.split_tables import Assignment, SplitCase
from brats_cache.build.splits import assign
from brats_cache.build.survey import HeaderCheck, Survey
from brats_cache.common.errors import BratsError, DataFaults
from brats_cache.discovery.cases import Case
from brats_cache.format.schema import NUM_LABELS
from brats_cache.imaging.labels import REGIONS, Scheme, canonical_table

__all__ = [
    "Plan",
    "PlannedCase",
    "assign_splits",
    "make_part_plans",
    "make_plan",
]

IMAGE_BYTES = 2  # a pixel of a channel, float16


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedCase:
    """One case of a plan, stored in the rows `first_row` to `first_row + n - 1` of the file.

    Attributes:
        survey: What the scans of the case hold.
        scheme: The label scheme of its mask.
        split: "train", "val" or "test".
        fold: 0 to K - 1, or -1 for none.
        first_row: First row of the file.
        slices: (n,) int64, canonical z of the slices in its rows, ascending.
    """

    survey: Survey
    scheme: Scheme
    split: str
    fold: int
    first_row: int
    slices: np.ndarray

    @property
    def id(self) -> str:
        """Id of the case."""
        return self.survey.case.id

    @property
    def canonical_pixels(self) -> np.ndarray:
        """Number of pixels of each canonical label in each slice as scanned.

        (NUM_LABELS, Z) int32, for all slices, not only those kept; the background is not counted.
        """
        pixels = np.zeros((NUM_LABELS, self.survey.depth), np.int32)
        table = canonical_table(self.scheme)
        for value, counts in zip(self.survey.label_values, self.survey.label_pixels, strict=True):
            pixels[table[value]] += counts
        return pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What a build writes: a whole cache, or one part of a sharded one.

    Attributes:
        options: The options of the build.
        data_dirs: The DATA arguments that hold the cases.
        cases: In the order of their rows.
        shard: Which part this is.
        fingerprint: 32 hexadecimal digits, the xxh3_128 of all that decides the content.
        set_fingerprint: The same for the whole set of parts: options, ids, patients, label schemes
            and splits of all cases, equal in every part.
        warnings: Messages for the user.
    """

    options: BuildOptions
    data_dirs: tuple[Path, ...]
    cases: tuple[PlannedCase, ...]
    shard: Shard
    fingerprint: str
    set_fingerprint: str
    warnings: tuple[str, ...]

    @cached_property
    def num_rows(self) -> int:
        """N, the number of rows of the file."""
        return sum(len(case.slices) for case in self.cases)

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """Shape of the images, (N, C, S, S)."""
        size = self.options.preparation.size
        return self.num_rows, len(self.options.preparation.modalities), size, size

    @property
    def num_bytes(self) -> int:
        """Bytes of images and masks; the tables add less than 0.1 %."""
        rows, channels, height, width = self.image_shape
        return rows * height * width * (channels * IMAGE_BYTES + 1)


def make_plan(
    surveys: Sequence[Survey],
    data_dirs: Sequence[Path],
    options: BuildOptions,
    shard: Shard | None = None,
    whole: Sequence[HeaderCheck] | None = None,
) -> Plan:
    """Plans a cache.

    Args:
        surveys: The cases to write, in order.
        data_dirs: The DATA arguments that hold them.
        options: The options of the build.
        shard: The part that these cases are; by default the whole.
        whole: All cases of a sharded build; they decide label schemes and splits, so that every
            part comes to the same. By default `surveys`.

    Returns:
        The plan.

    Raises:
        DataFaults: A label scheme cannot be detected, or the splits of a table do not fit the
            cases.
        BratsError: The splits are impossible, or no slice is selected.
    """
    decisions = _decide(surveys if whole is None else whole, options)
    return _plan_part(surveys, data_dirs, options, shard or Shard(), decisions)


def make_part_plans(surveys: Sequence[Survey], options: BuildOptions, num_parts: int) -> list[Plan]:
    """Plans all parts of a sharded build.

    Args:
        surveys: All cases of all parts, in order.
        options: The options of the build.
        num_parts: Number of parts, at most as many as cases.

    Returns:
        The plan of each part, the one that `make_plan` makes of it.

    Raises:
        DataFaults, BratsError: As `make_plan`.
    """
    decisions = _decide(surveys, options)
    plans = []
    for index in range(1, num_parts + 1):
        shard = Shard(index=index, count=num_parts)
        own = shard.share(surveys)
        data_dirs = tuple(dict.fromkeys(survey.case.data_dir for survey in own))
        plans.append(_plan_part(own, data_dirs, options, shard, decisions))
    return plans


@dataclass(frozen=True, kw_only=True, eq=False)
class _Decisions:
    """What all cases of all parts decide together."""

    schemes: Mapping[str, Scheme]
    assignments: Mapping[str, Assignment]
    warnings: Sequence[str]
    set_fingerprint: str


def _decide(all_cases: Sequence[Survey | HeaderCheck], options: BuildOptions) -> _Decisions:
    schemes, faults = detect_schemes(all_cases, options.label_scheme)
    if faults:
        raise DataFaults(faults)
    assignments, warnings = assign_splits([one.case for one in all_cases], options)
    set_content = [
        [one.case.id, one.case.patient, schemes[one.case.id].name, asdict(assignments[one.case.id])]
        for one in all_cases
    ]
    return _Decisions(
        schemes=schemes,
        assignments=assignments,
        warnings=warnings,
        set_fingerprint=_digest([describe_options(options), set_content]),
    )


def _plan_part(
    surveys: Sequence[Survey],
    data_dirs: Sequence[Path],
    options: BuildOptions,
    shard: Shard,
    decisions: _Decisions,
) -> Plan:
    planned = _plan_cases(surveys, decisions.schemes, decisions.assignments, options.slices)
    empty = [case.id for case in planned if not len(case.slices)]
    if len(empty) == len(planned):
        raise BratsError(f"--slices {options.slices} selects no slice of any case.")
    warnings = [*decisions.warnings]
    if empty:
        names = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        warnings.append(f"--slices {options.slices} selects no slice of {names}")
    return Plan(
        options=options,
        data_dirs=tuple(data_dirs),
        cases=tuple(planned),
        shard=shard,
        fingerprint=_fingerprint(planned, options, [str(shard), decisions.set_fingerprint]),
        set_fingerprint=decisions.set_fingerprint,
        warnings=(*warnings, *plan_warnings(surveys, planned)),
    )


def _plan_cases(
    surveys: Sequence[Survey],
    schemes: Mapping[str, Scheme],
    assignments: Mapping[str, Assignment],
    rule: str,
) -> list[PlannedCase]:
    """Selects the slices of each case and gives them the rows after those of the case before."""
    planned: list[PlannedCase] = []
    first_row = 0
    for survey in surveys:
        scheme, assignment = schemes[survey.case.id], assignments[survey.case.id]
        slices = _select_slices(survey, scheme, rule)
        planned.append(
            PlannedCase(
                survey=survey,
                scheme=scheme,
                split=assignment.split,
                fold=assignment.fold,
                first_row=first_row,
                slices=slices,
            )
        )
        first_row += len(slices)
    return planned


def assign_splits(
    cases: Sequence[Case], options: BuildOptions
) -> tuple[dict[str, Assignment], list[str]]:
    """Assigns every case to a split and a fold, without reading scans.

    Args:
        cases: All cases; the split that a manifest gives them, if any, is kept.
        options: `val_fraction`, `num_folds`, `seed` and `split_file` are used.

    Returns:
        The split and fold of each case by its id, and warnings for the user.

    Raises:
        DataFaults: A table of splits does not fit the cases.
        BratsError: The splits are impossible.
    """
    return assign(
        [
            SplitCase(
                case=case.id,
                patient=case.patient,
                grade=case.grade,
                has_mask=case.mask is not None,
            )
            for case in cases
        ],
        val_fraction=options.val_fraction,
        num_folds=options.num_folds,
        seed=options.seed,
        split_file=options.split_file,
        given={case.id: case.split for case in cases if case.split},
    )


def _fingerprint(cases: Sequence[PlannedCase], options: BuildOptions, part: Sequence[str]) -> str:
    """32 hexadecimal digits over options, cases, their rows, and the checksums of their sources."""
    content = {
        "part": part,
        "options": describe_options(options),
        "cases": [
            [
                case.id,
                case.survey.case.patient,
                case.survey.case.grade,
                case.survey.case.age,
                case.survey.case.survival,
                [scan.channel for scan in case.survey.case.images.values()],
                case.scheme.name,
                case.split,
                case.fold,
                case.first_row,
                case.slices.tolist(),
                [[source.num_bytes, source.checksum] for source in case.survey.sources],
            ]
            for case in cases
        ],
    }
    return _digest(content)


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(text.encode())


def _select_slices(survey: Survey, scheme: Scheme, rule: str) -> np.ndarray:
    """Returns the canonical z of the slices that `rule` selects, ascending, (n,) int64."""
    depth = survey.depth
    if rule == "all":
        return np.arange(depth)
    if rule == "middle":
        return np.array([depth // 2])
    if rule == "brain":
        return np.flatnonzero(survey.brain_pixels)
    if rule == "tumor":
        table = canonical_table(scheme)
        is_tumor = np.array([table[value] in REGIONS["wt"] for value in survey.label_values], bool)
        return np.flatnonzero(survey.label_pixels[is_tumor].any(axis=0))
    first, last = (int(bound) for bound in rule.split(":"))
    return np.arange(min(first, depth), min(last, depth))
