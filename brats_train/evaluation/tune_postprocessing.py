"""Choosing post-processing on the validation cases: threshold, flips, smallest component.

The choice travels in the checkpoint; `eval` and `predict` use it unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_cache.format.reader import Cache
from brats_cache.format.truth import true_labels
from brats_cache.imaging.labels import region_table
from brats_train.data.selection import case_splits
from brats_train.evaluation.calibration import best_threshold, dice_by_threshold, probability_table
from brats_train.inference.case_prediction import predict_cached_case
from brats_train.inference.components import dice_by_min_voxels
from brats_train.inference.ensemble import Ensemble
from brats_train.inference.postprocess import regions_of
from brats_train.models import checkpoint
from brats_train.runtime.distributed import World

__all__ = [
    "PostprocessingChoice",
    "choose_postprocessing",
    "estimate_choice_seconds",
    "record_postprocessing",
]

MIN_GAIN_OF_TTA = 0.002  # mean Dice; flips cost four times the time
NUM_PASSES = 6  # forward passes of a slice: plain, and flipped ones
SECONDS_A_CASE = 2.0  # resampling and counting
MIN_COMPONENT_VOXELS = (0, 10, 25, 50, 100, 250, 500, 1000)
Curves = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class PostprocessingChoice:
    """The post-processing with the best mean Dice on the validation cases.

    Attributes:
        threshold: Probability from which a voxel belongs to a region.
        tta: Whether probabilities are averaged over flips.
        min_component_voxels: Smaller components of a region are dropped.
        dice: The mean Dice over cases and regions that it gives: an optimistic figure, since it
            was chosen by it.
    """

    threshold: float
    tta: bool
    min_component_voxels: int
    dice: float


def choose_postprocessing(
    caches: Sequence[Cache],
    fold: int | None,
    ensemble: Ensemble,
    world: World,
    *,
    try_tta: bool = True,
) -> PostprocessingChoice:
    """Chooses threshold and flips, then the component size, by mean Dice over cases and regions.

    Of equal ones the threshold nearest 0.5 and the smallest size win. Ranks share the cases out;
    the choice does not depend on their number.

    Args:
        caches: The caches that hold the validation cases.
        fold: As in training.
        ensemble: The model.
        world: This process among its peers.
        try_tta: Whether averaging over flips may be chosen.

    Returns:
        The choice, on every rank.

    Raises:
        BratsError: No validation case has a mask.
    """
    cases = [
        (cache, int(index))
        for cache in caches
        for index in np.flatnonzero(case_splits(cache, fold) == "val")
        if cache.cases["has_mask"][index]
    ]
    if not cases:
        raise BratsError("no validation case has a mask, so there is nothing to choose by.")
    mine = cases[world.rank :: world.size]
    threshold, dice = best_threshold(_gathered(_by_threshold(mine, ensemble, tta=False), world))
    tta = False
    if try_tta:
        curves = _gathered(_by_threshold(mine, ensemble, tta=True), world)
        flipped_threshold, flipped_dice = best_threshold(curves)
        if flipped_dice >= dice + MIN_GAIN_OF_TTA:
            threshold, tta = flipped_threshold, True
    curves = _gathered(_by_size(mine, ensemble, tta, threshold), world)
    means = np.mean([curves[name] for name in sorted(curves)], axis=0)
    best = int(means.argmax())
    return PostprocessingChoice(
        threshold=threshold,
        tta=tta,
        min_component_voxels=MIN_COMPONENT_VOXELS[best],
        dice=float(means[best]),
    )


def estimate_choice_seconds(
    caches: Sequence[Cache], fold: int | None, seconds_per_slice: float
) -> float:
    """Estimates how long `choose_postprocessing` takes.

    Args:
        caches: The caches.
        fold: The fold that validates, None for the caches' own split.
        seconds_per_slice: Of a forward pass.
    """
    cases = [
        (cache, int(case))
        for cache in caches
        for case in np.flatnonzero(case_splits(cache, fold) == "val")
    ]
    num_slices = sum(int(cache.cases["rows"][case]) for cache, case in cases)
    return NUM_PASSES * num_slices * seconds_per_slice + SECONDS_A_CASE * len(cases)


def record_postprocessing(path: Path, choice: PostprocessingChoice) -> None:
    """Writes a choice into the checkpoint at `path`, atomically, with its new digest."""
    content = checkpoint.load(path)
    chosen = {name: value for name, value in asdict(choice).items() if name != "dice"}
    content["segmenter"] = {**content["segmenter"], **chosen}
    write_atomically(path, partial(checkpoint.save, content))


def _by_threshold(
    cases: Sequence[tuple[Cache, int]], ensemble: Ensemble, tta: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Dice at every threshold, of each case and region."""
    for cache, index in cases:
        prediction = predict_cached_case(cache, index, ensemble, tta)
        for name, channel, truth in _truths(cache, index, ensemble):
            table = probability_table(
                prediction.probabilities[:, channel], truth[prediction.z_indices]
            )
            yield name, dice_by_threshold(table)


def _by_size(
    cases: Sequence[tuple[Cache, int]], ensemble: Ensemble, tta: bool, threshold: float
) -> Iterator[tuple[str, np.ndarray]]:
    """Dice at each of `MIN_COMPONENT_VOXELS`, of each case and region."""
    for cache, index in cases:
        prediction = predict_cached_case(cache, index, ensemble, tta)
        masks = regions_of(
            prediction.probabilities,
            ensemble.spec.regions,
            prediction.z_indices,
            cache.depth(index),
            threshold=threshold,
            min_component_voxels=0,
        )
        for name, channel, truth in _truths(cache, index, ensemble):
            yield name, dice_by_min_voxels(masks[channel], truth, MIN_COMPONENT_VOXELS)


def _truths(cache: Cache, index: int, ensemble: Ensemble) -> Iterator[tuple[str, int, np.ndarray]]:
    """Name, channel and (Z, Y, X) bool truth of each region that the case's labels know."""
    labels = true_labels(cache, index)
    for channel, region in enumerate(ensemble.spec.regions):
        if region in cache.scheme(index).regions:
            name = f"{cache.cases['id'][index].decode()} {region}"
            yield name, channel, region_table(region)[labels]


def _gathered(scores: Iterator[tuple[str, np.ndarray]], world: World) -> Curves:
    return {name: curve for part in world.all_gather(dict(scores)) for name, curve in part.items()}
