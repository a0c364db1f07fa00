"""The slices, masks and calibration of the cases that a report shows.

Cases and scores are those that `brats eval` wrote, and so are the masks and the calibration of the
probabilities, which it has stored; the model that was scored predicts what is not stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_cache.format.truth import true_labels
from brats_train.data.selection import Fold, case_splits
from brats_train.evaluation.calibration import Table
from brats_train.evaluation.results import Results
from brats_train.report.case_entry import CaseEntry
from brats_train.report.gallery import CaseSlices, Predict, select_slices

__all__ = ["Progress", "ScoredCases", "choose_panels", "predict_cases"]

# A page that can be sent by e-mail: all slices of the worst cases, as far as these bytes go, and up
# to 16 through the tumour of the others, fewer with more than 55 cases.
SLICES_BYTES = 15_000_000
MAX_SLICES = 16
BYTES_OF_A_SLICE = 14_000  # of four modalities of 240 x 240 pixels
MAX_CASES_WITH_16_SLICES = 55
NUM_TESTS = 4
Progress = Callable[[float, int], None]


@dataclass(kw_only=True)
class ScoredCases:
    """What is kept of the scored cases.

    Attributes:
        entries: All cases that have slices in the caches, for the page.
        panels: Heading and slices of the cases of the figure `panels`, best first, by id.
        tables: Sums of probability tables, by region.
    """

    entries: list[CaseEntry] = field(default_factory=list)
    panels: dict[str, tuple[str, CaseSlices]] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)


def predict_cases(
    results: Results,
    caches: Sequence[Cache],
    predict: Predict,
    fold: Fold,
    progress: Progress,
) -> tuple[ScoredCases, list[CaseSlices]]:
    """Predicts the scored cases and, with a model, a few test cases without a mask.

    Args:
        results: The evaluation.
        caches: The caches that were scored.
        predict: Predicts a case.
        fold: Of the run.
        progress: Called with (done, total) cases.

    Raises:
        BratsError: A scored case is in none of `caches`, or its truth cannot be read.
    """
    cases = _locate_cases(results, caches)
    unseen = {case for case, (cache, index) in cases.items() if not cache.cases["rows"][index]}
    for_panels = choose_panels(results, unseen)
    limit = MAX_SLICES * MAX_CASES_WITH_16_SLICES // max(len(cases), MAX_CASES_WITH_16_SLICES)
    limit = max(limit, 1)
    bytes_left = SLICES_BYTES - len(cases) * limit * BYTES_OF_A_SLICE
    scored = ScoredCases()
    is_model = "predictions" not in results.summary
    tests = _choose_tests(caches, fold) if is_model else []
    total = len(cases) + len(tests)
    progress(0, total)
    for number, case in enumerate(_worst_first(results), start=1):
        if case in unseen:
            continue
        cache, index = cases[case]
        labels = true_labels(cache, index)
        predicted = predict(cache, index, labels)
        for region, table in predicted.tables.items():
            scored.tables[region] = scored.tables.get(region, 0) + table
        ml_per_voxel = math.prod(cache.grid(index).spacing_mm) / 1000
        for most in (None, limit) if bytes_left > 0 else (limit,):
            slices = select_slices(cache, index, predicted, labels, results.regions, most)
            entry = CaseEntry.of(slices, ml_per_voxel)
            more = entry.num_bytes - limit * BYTES_OF_A_SLICE
            if most is None and more <= bytes_left:
                bytes_left -= more
                break
            bytes_left = 0  # the next cases take no more than `limit` slices
            if most is not None and more > 0:  # slices are larger than usual
                fewer = max(1, limit * limit * BYTES_OF_A_SLICE // entry.num_bytes)
                slices = select_slices(cache, index, predicted, labels, results.regions, fewer)
                entry = CaseEntry.of(slices, ml_per_voxel)
        if case in for_panels:
            scored.panels[case] = (for_panels[case], slices)
        scored.entries.append(entry)
        progress(number, total)
    place = {case: number for number, case in enumerate(results.cases)}
    scored.panels = {case: scored.panels[case] for case in for_panels}
    scored.entries.sort(key=lambda entry: place[entry.case])
    shown_tests = []
    for number, (cache, index) in enumerate(tests, start=len(cases) + 1):
        predicted = predict(cache, index, None)
        shown_tests.append(
            select_slices(cache, index, predicted, None, results.regions, MAX_SLICES)
        )
        progress(number, total)
    return scored, shown_tests


def _worst_first(results: Results) -> list[str]:
    """The cases by Dice of the first region; those whose Dice is undefined come last."""
    scores = results.values(results.regions[0], "dice")
    return sorted(results.cases, key=lambda case: (math.isnan(scores[case]), scores[case]))


def _locate_cases(results: Results, caches: Sequence[Cache]) -> dict[str, tuple[Cache, int]]:
    """The cache of each scored case, and its number in it, by id."""
    every = {case: (cache, index) for cache in caches for index, case in enumerate(cache.case_ids)}
    missing = [case for case in results.cases if case not in every]
    if missing:
        raise BratsError(
            f"{results.folder}: {len(missing)} scored cases are in no cache ({missing[0]}). Name "
            "every cache that was scored with --cache."
        )
    return {case: every[case] for case in results.cases}


def _choose_tests(caches: Sequence[Cache], fold: Fold) -> list[tuple[Cache, int]]:
    """A few test cases without a mask, evenly spaced over all of them."""
    unmasked = [
        (cache, int(index))
        for cache in caches
        for index in np.flatnonzero(case_splits(cache, fold) == "test")
        if not cache.cases["has_mask"][index] and cache.cases["rows"][index]
    ]
    steps = np.linspace(0, len(unmasked) - 1, min(NUM_TESTS, len(unmasked))).round().astype(int)
    return [unmasked[step] for step in steps]


def choose_panels(results: Results, unseen: Collection[str] = ()) -> dict[str, str]:
    """Ids of the best, median and worst case by Dice of the first region, with their headings.

    `unseen` are cases without slices, which cannot be drawn.
    """
    region = results.regions[0]
    scores = results.values(region, "dice")
    defined = [case for case in scores if not math.isnan(scores[case]) and case not in unseen]
    ranked = sorted(defined, key=lambda case: (scores[case], case))
    if not ranked:
        return {}
    wanted = {"best": -1, "median": (len(ranked) - 1) // 2, "worst": 0}
    if len(ranked) < 3:
        del wanted["median"]
    headings: dict[str, str] = {}
    for word, rank in wanted.items():
        case = ranked[rank]
        headings.setdefault(case, f"{word}, {region.upper()} Dice {scores[case]:.3f}")
    if len(ranked) == 1:
        return {ranked[0]: f"the only case, {region.upper()} Dice {scores[ranked[0]]:.3f}"}
    return headings
