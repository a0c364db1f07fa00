"""Choosing post-processing by region: threshold, flips, smallest component, smallest region.

It is chosen on cases that no training step saw and that are not judged by it: the validation cases
of a split, or the other folds of a cross-validation. The choice travels in the checkpoint; `eval`
and `predict` use it unless told otherwise.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_cache.format.reader import Cache
from brats_cache.format.truth import true_labels
from brats_cache.imaging.labels import region_table
from brats_train.data.selection import Fold, case_splits
from brats_train.inference.case_prediction import predict_cached_case
from brats_train.inference.components import component_curves
from brats_train.inference.ensemble import Ensemble, ShareDone
from brats_train.models import checkpoint
from brats_train.models.postprocessing import Postprocessing, RegionRule
from brats_train.runtime.distributed import World

__all__ = [
    "CaseCurves",
    "cases_to_choose_by",
    "choose_postprocessing",
    "estimate_choice_seconds",
    "measure_cases",
    "most_cases_within",
    "record_postprocessing",
]

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
MIN_COMPONENT_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
MIN_VOXELS = {"et": (0, 50, 100, 200, 500)}  # only ET may rightly be absent from a tumour
MIN_GAIN = 0.002  # mean Dice that a rule other than the default must bring, and that flips must
NUM_PASSES = 5  # forward passes of a slice: plain, and with its flips
SECONDS_A_VOXEL = 4.5e-7  # of a scan: resampling and counting, 4 s for 240 x 240 x 155


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseCurves:
    """What one case and region would score by any of the rules; T thresholds, S component sizes.

    Attributes:
        dice: (2, T, S) Dice, without and with flips.
        voxels: (2, T, S) voxels of the mask.
        is_absent: Whether the truth is empty.
    """

    dice: np.ndarray
    voxels: np.ndarray
    is_absent: bool

    def with_min_voxels(self, min_voxels: int) -> np.ndarray:
        """(2, T, S) Dice where a mask of fewer voxels is emptied; two empty masks have Dice 1."""
        return np.where(self.voxels < min_voxels, float(self.is_absent), self.dice)


Measured = Mapping[tuple[str, str], CaseCurves]  # by case id and region
Progress = Callable[[float, int], None]


class _Choice(NamedTuple):
    rule: RegionRule
    dice: float


def measure_cases(
    caches: Sequence[Cache],
    fold: Fold,
    ensemble: Ensemble,
    world: World,
    progress: Progress,
    at_most: int | None = None,
) -> Measured:
    """Measures what every rule would give on the validation cases; ranks share them out.

    Args:
        caches: The caches that hold the validation cases.
        fold: As in training.
        ensemble: The model.
        world: This process among its peers.
        progress: Called with the number of this rank's cases done, parts of one included, and of
            all.
        at_most: Takes so many of the cases, evenly spread; None takes all.

    Returns:
        The curves of each case and region, on every rank.

    Raises:
        BratsError: No validation case has a mask.
    """
    cases = cases_to_choose_by(caches, fold, at_most)
    if not cases:
        raise BratsError("no validation case has a mask, so there is nothing to choose by.")
    mine: dict[tuple[str, str], CaseCurves] = {}
    here = cases[world.rank :: world.size]
    progress(0, len(here))
    for number, (cache, index) in enumerate(here):

        def part(share: float, number: int = number) -> None:
            progress(number + share, len(here))

        mine.update(_measure(cache, index, ensemble, part))
        progress(number + 1, len(here))
    return {key: curves for part in world.all_gather(mine) for key, curves in part.items()}


def choose_postprocessing(
    measured: Measured, regions: Sequence[str], default: Postprocessing
) -> Postprocessing:
    """Chooses the rules with the best mean Dice over cases, each region by itself.

    A rule must gain `MIN_GAIN` over the region's default, and so must flips over none, which take
    four times as long. Of equal rules the simplest wins, so the choice does not depend on the order
    of the cases.

    Args:
        measured: Of `measure_cases`.
        regions: The model's regions.
        default: The rules of the recipe, which stay where nothing gains enough.
    """
    by_region = {
        region: [measured[key] for key in sorted(measured) if key[1] == region]
        for region in regions
    }
    known = {region: curves for region, curves in by_region.items() if curves}
    plain, flipped = (
        {
            region: _best_rule(region, curves, tta, default.rule(region))
            for region, curves in known.items()
        }
        for tta in (False, True)
    )
    gain = np.mean([flipped[region].dice - plain[region].dice for region in known])
    chosen = flipped if gain >= MIN_GAIN else plain
    rules = {region: choice.rule for region, choice in chosen.items()}
    return Postprocessing(tta=chosen is flipped, rules={**default.rules, **rules})


def estimate_choice_seconds(
    caches: Sequence[Cache], fold: Fold, seconds_per_slice: float, at_most: int | None = None
) -> float:
    """Estimates how long `measure_cases` takes.

    Args:
        caches: The caches.
        fold: The fold that validates, None for the caches' own split.
        seconds_per_slice: Of a forward pass.
        at_most: See `measure_cases`.
    """
    cases = cases_to_choose_by(caches, fold, at_most)
    num_slices = sum(int(cache.cases["rows"][case]) for cache, case in cases)
    num_voxels = sum(math.prod(cache.cases["native_shape"][case].tolist()) for cache, case in cases)
    return NUM_PASSES * num_slices * seconds_per_slice + SECONDS_A_VOXEL * num_voxels


def most_cases_within(
    seconds: float, caches: Sequence[Cache], fold: Fold, seconds_per_slice: float
) -> int | None:
    """How many cases `measure_cases` can take in so many seconds; None where it can take all."""
    num_cases = len(cases_to_choose_by(caches, fold, None))

    def estimate(at_most: int) -> float:
        return estimate_choice_seconds(caches, fold, seconds_per_slice, at_most)

    most = bisect_right(range(1, num_cases + 1), seconds, key=estimate)
    return None if most == num_cases else most


def cases_to_choose_by(
    caches: Sequence[Cache], fold: Fold, at_most: int | None = None
) -> list[tuple[Cache, int]]:
    """The validation cases that have a mask, or `at_most` of them, evenly spread."""
    cases = [
        (cache, int(index))
        for cache in caches
        for index in np.flatnonzero(case_splits(cache, fold) == "val")
        if cache.cases["has_mask"][index]
    ]
    if at_most is None or at_most >= len(cases):
        return cases
    chosen = np.linspace(0, len(cases) - 1, at_most).round().astype(int)
    return [cases[index] for index in chosen]


def record_postprocessing(path: Path, chosen: Postprocessing) -> None:
    """Writes a choice into the checkpoint at `path`, atomically, with its new digest."""
    content = checkpoint.load(path)
    content["segmenter"] = {**content["segmenter"], "postprocessing": asdict(chosen)}
    write_atomically(path, partial(checkpoint.save, content))


def _measure(
    cache: Cache, index: int, ensemble: Ensemble, progress: ShareDone
) -> Iterator[tuple[tuple[str, str], CaseCurves]]:
    """The curves of each region that the case's labels know."""
    labels, case = true_labels(cache, index), cache.case_id(index)
    plain = predict_cached_case(
        cache, index, ensemble, False, progress=lambda share: progress(share / NUM_PASSES)
    )
    flipped = predict_cached_case(
        cache,
        index,
        ensemble,
        True,
        progress=lambda share: progress((1 + share * (NUM_PASSES - 1)) / NUM_PASSES),
    )
    predictions = (plain, flipped)
    for channel, region in enumerate(ensemble.spec.regions):
        if region not in cache.scheme(index).regions:
            continue
        truth = region_table(region)[labels]
        shape = (len(predictions), len(THRESHOLDS), len(MIN_COMPONENT_SHARES))
        dice, voxels = np.zeros(shape), np.zeros(shape, np.int64)
        for (tta, prediction), (level, threshold) in product(
            enumerate(predictions), enumerate(THRESHOLDS)
        ):
            mask = np.zeros(truth.shape, bool)
            mask[prediction.z_indices] = prediction.probabilities[:, channel] >= threshold
            dice[tta, level], voxels[tta, level] = component_curves(
                mask, truth, MIN_COMPONENT_SHARES
            )
        curves = CaseCurves(dice=dice, voxels=voxels, is_absent=not truth.any())
        yield (case, region), curves


def _best_rule(region: str, cases: Sequence[CaseCurves], tta: bool, default: RegionRule) -> _Choice:
    """The best rule of a region, and its mean Dice."""
    choices = []
    for min_voxels in MIN_VOXELS.get(region, (0,)):
        means = np.mean([case.with_min_voxels(min_voxels)[int(tta)] for case in cases], axis=0)
        for (level, threshold), (size, share) in product(
            enumerate(THRESHOLDS), enumerate(MIN_COMPONENT_SHARES)
        ):
            rule = RegionRule(threshold=threshold, min_component_share=share, min_voxels=min_voxels)
            choices.append(_Choice(rule, float(means[level, size])))
    usual = next((choice for choice in choices if choice.rule == default), None)
    best = max(choices, key=lambda choice: (round(choice.dice, 6), *_simplicity(choice.rule)))
    return best if usual is None or best.dice >= usual.dice + MIN_GAIN else usual


def _simplicity(rule: RegionRule) -> tuple[float, ...]:
    return (
        -round(abs(rule.threshold - 0.5), 6),
        -rule.min_voxels,
        -rule.min_component_share,
        -rule.threshold,
    )
