"""From surveyed cases and options to the exact rows of a cache, before a byte is written.

A contiguous dataset cannot grow, so everything is decided here: which slices of which case stand in
which row, the label scheme and the split of each case, the size of the file, and the fingerprint of
all that decides its content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xxhash

from brats_cache.build.schemes import detect_schemes
from brats_cache.build.shards import Shard
from brats_cache.build.splits import Assignment, Patient, assign
from brats_cache.build.survey import HeaderCheck, Survey
from brats_cache.common.errors import BratsError, DataFaults
from brats_cache.common.text import first_few
from brats_cache.discovery.cases import Case
from brats_cache.format.schema import NUM_LABELS
from brats_cache.imaging.labels import REGIONS, SCHEMES, Scheme, canonical_table
from brats_cache.imaging.preprocess import FITS, NORMALIZATIONS, Preparation

__all__ = [
    "BuildOptions",
    "Plan",
    "PlannedCase",
    "assign_splits",
    "describe_options",
    "make_plan",
]

IMAGE_BYTES = 2
_RANGE = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What a person chose; all of it decides the content of the cache.

    slices        "brain", "tumor", "middle", "all" or "A:B" (canonical z, B excluded)
    label_scheme  "auto" or a scheme's name
    val_fraction  part of the patients that validates
    num_folds     0 for none
    split_file    its content decides the split instead of the two above
    """

    preparation: Preparation
    slices: str = "brain"
    label_scheme: str = "auto"
    val_fraction: float = 0.15
    num_folds: int = 0
    split_file: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises `BratsError` naming the option that cannot be."""
        preparation = self.preparation
        if self.slices not in ("brain", "tumor", "middle", "all"):
            bounds = _RANGE.fullmatch(self.slices)
            if not bounds or int(bounds[1]) >= int(bounds[2]):
                raise BratsError(
                    f"--slices {self.slices}: expected brain, tumor, middle, all or A:B with A < B."
                )
        if preparation.fit not in FITS:
            raise BratsError(f"--fit {preparation.fit}: expected {' or '.join(FITS)}.")
        if preparation.normalize not in NORMALIZATIONS:
            expected = ", ".join(NORMALIZATIONS)
            raise BratsError(f"--normalize {preparation.normalize}: expected one of {expected}.")
        if not 16 <= preparation.size <= 4096:
            raise BratsError(f"--size {preparation.size}: expected 16 to 4096 pixels.")
        if self.label_scheme not in ("auto", *SCHEMES):
            expected = ", ".join(["auto", *SCHEMES])
            raise BratsError(f"--label-scheme {self.label_scheme}: expected one of {expected}.")
        if self.num_folds < 0 or self.num_folds == 1:
            raise BratsError(f"--folds {self.num_folds}: expected 2 or more, or 0 for none.")
        if not 0 <= self.val_fraction < 1:
            raise BratsError(f"--val-fraction {self.val_fraction}: expected 0 up to 1, 1 excluded.")


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedCase:
    """One case with its place: rows `first_row` to `first_row + len(slices)` hold `slices` (z)."""

    survey: Survey
    scheme: Scheme
    split: str
    fold: int
    first_row: int
    slices: np.ndarray

    @property
    def id(self) -> str:
        return self.survey.case.id

    @property
    def canonical_pixels(self) -> np.ndarray:
        """(NUM_LABELS, Z) int32: native pixels of each canonical label in each slice."""
        pixels = np.zeros((NUM_LABELS, self.survey.depth), np.int32)
        table = canonical_table(self.scheme)
        for value, counts in zip(self.survey.label_values, self.survey.label_pixels, strict=True):
            pixels[table[value]] += counts
        return pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A cache to be, or one part of it. `warnings` are for the person who asked for it.

    fingerprint      32 hex digits over all that decides the content
    set_fingerprint  the same of the set that this is a part of, without what only its own part
                     knows of a case
    """

    options: BuildOptions
    data_dirs: tuple[Path, ...]
    cases: tuple[PlannedCase, ...]
    shard: Shard
    fingerprint: str
    set_fingerprint: str
    warnings: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        return sum(len(case.slices) for case in self.cases)

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """(N, C, S, S)."""
        size = self.options.preparation.size
        return self.num_rows, len(self.options.preparation.modalities), size, size

    @property
    def num_bytes(self) -> int:
        """Bytes of images and masks; the tables add well under a thousandth."""
        rows, channels, height, width = self.image_shape
        return rows * height * width * (channels * IMAGE_BYTES + 1)


def make_plan(
    surveys: Sequence[Survey],
    data_dirs: Sequence[Path],
    options: BuildOptions,
    shard: Shard | None = None,
    whole: Sequence[HeaderCheck] | None = None,
) -> Plan:
    """The plan of these cases, as part `shard` of the cases `whole`, which decide label schemes and
    splits, where it is a part.

    Raises `BratsError` or `DataFaults` for label schemes that cannot be told, splits that cannot
    be made, and a plan without rows."""
    everyone: Sequence[Survey | HeaderCheck] = surveys if whole is None else whole
    schemes, faults = detect_schemes(everyone, options.label_scheme)
    if faults:
        raise DataFaults(faults)
    assignments, warnings = assign_splits([one.case for one in everyone], options)
    planned: list[PlannedCase] = []
    first_row = 0
    for survey in surveys:
        slices = _select_slices(survey, schemes[survey.case.id], options.slices)
        assignment = assignments[survey.case.id]
        planned.append(
            PlannedCase(
                survey=survey,
                scheme=schemes[survey.case.id],
                split=assignment.split,
                fold=assignment.fold,
                first_row=first_row,
                slices=slices,
            )
        )
        first_row += len(slices)
    empty = [case.id for case in planned if not len(case.slices)]
    if len(empty) == len(planned):
        raise BratsError(f"--slices {options.slices} selects no slice of any case.")
    if empty:
        names = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        warnings = [*warnings, f"--slices {options.slices} selects no slice of {names}"]
    set_content = [
        [one.case.id, one.case.patient, schemes[one.case.id].name, asdict(assignments[one.case.id])]
        for one in everyone
    ]
    set_fingerprint = _digest([describe_options(options), set_content])
    shard = shard or Shard()
    return Plan(
        options=options,
        data_dirs=tuple(data_dirs),
        cases=tuple(planned),
        shard=shard,
        fingerprint=_fingerprint(planned, options, [str(shard), set_fingerprint]),
        set_fingerprint=set_fingerprint,
        warnings=(*warnings, *_warn_of_brains(surveys), *_warn_of_no_tumor(planned)),
    )


def assign_splits(
    cases: Sequence[Case], options: BuildOptions
) -> tuple[dict[str, Assignment], list[str]]:
    """The split and fold of each case, and warnings; needs no scan to be read. Raises as
    `splits.assign` does."""
    patients = [
        Patient(
            case=case.id,
            patient=case.patient,
            grade=case.grade,
            has_mask=case.mask is not None,
        )
        for case in cases
    ]
    return assign(
        patients,
        val_fraction=options.val_fraction,
        num_folds=options.num_folds,
        seed=options.seed,
        split_file=options.split_file,
        given={case.id: case.split for case in cases if case.split},
    )


def describe_options(options: BuildOptions) -> dict[str, object]:
    """The options as they are kept in the file: plain JSON values."""
    described = asdict(options)
    described["split_file"] = options.split_file.name if options.split_file else None
    described.update(described.pop("preparation"))
    return described


def _fingerprint(cases: Sequence[PlannedCase], options: BuildOptions, part: Sequence[str]) -> str:
    """32 hex digits over all that decides the content: options, sources by checksum, places."""
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


def _warn_of_brains(surveys: Sequence[Survey]) -> list[str]:
    """Cases where no voxel is zero, so that nothing tells the head from what is around it."""
    filled = [
        survey.case.id
        for survey in surveys
        if int(survey.brain_pixels.sum()) == int(np.prod(survey.shape))
    ]
    if not filled:
        return []
    names = first_few(filled)
    return [
        f"no voxel is zero in {names}: the background is taken for brain, in the statistics that "
        "normalise the scan as well. Set it to zero (skull stripping) unless that is meant."
    ]


def _warn_of_no_tumor(cases: Sequence[PlannedCase]) -> list[str]:
    """Training slices of which none holds a tumour, so that nothing could be learned from them."""
    train = [case for case in cases if case.split == "train" and len(case.slices)]
    labels = sorted(REGIONS["wt"])
    if not train or any(case.canonical_pixels[labels][:, case.slices].any() for case in train):
        return []
    return [
        f"none of the training slices of {len(train)} cases holds a single pixel of tumour; "
        "training on this cache will stop. Look at the masks and at --slices."
    ]


def _select_slices(survey: Survey, scheme: Scheme, rule: str) -> np.ndarray:
    """The canonical z of the slices that `rule` names, ascending, (n,) int64."""
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
