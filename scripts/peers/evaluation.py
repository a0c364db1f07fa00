"""Benchmark `evaluation`: Dice, HD95 and surface Dice of the same masks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache, open_cache
from brats_cache.format.truth import true_labels
from brats_cache.imaging.labels import REGIONS, region_table
from brats_train.evaluation.metrics import SURFACE_TOLERANCE_MM, score_region
from peers.job import Job
from peers.ways import OURS, Benchmark, Way, measure, wanted

__all__ = ["MaskPair", "alter", "run"]

Scores = tuple[float, float, float]  # Dice, HD95 in mm, surface Dice at SURFACE_TOLERANCE_MM
NAME = {
    "brats": "brats",
    "deepmind": "surface-distance",
    "monai": "MONAI",
    "subvoxels": "MONAI, surface Dice by area",
}
MAX_CASES = 12  # evenly spread over those there are; a region takes 18 MB
# Which of the three scores have the definition of brats, and so should have its value.
EQUAL = {NAME["deepmind"]: (0, 1, 2), NAME["monai"]: (0,), NAME["subvoxels"]: (0, 2)}
METRICS = ("Dice", "HD95", "surface Dice")
TOLERANCE = (1e-6, 1e-4, 1e-5)  # of rounding, by metric


@dataclass(frozen=True, kw_only=True)
class MaskPair:
    """A region of a case.

    Attributes:
        name: Case and region.
        truth: (Z, Y, X) bool, not empty.
        prediction: (Z, Y, X) bool, not empty.
        spacing_mm: Along Z, Y, X.
    """

    name: str
    truth: np.ndarray
    prediction: np.ndarray
    spacing_mm: tuple[float, float, float]


def run(job: Job, save: Callable[[dict[str, Any]], None]) -> None:
    """Measures the ways, after comparing their values."""
    warnings.simplefilter("ignore")  # surface-distance uses old names of SciPy
    torch.set_num_threads(1)
    pairs = mask_pairs(open_cache(job.cache_path))
    makers = {
        OURS: lambda: [
            Way(
                name=NAME["brats"],
                peer=OURS,
                note=(
                    "`score_region`, without lesions: HD95 and surface Dice weighed by area (the "
                    "definition of the BraTS 2023 evaluation), and besides IoU, sensitivity, "
                    "specificity, precision and volume difference."
                ),
                run=lambda: _score_all(score_by_brats, pairs),
            )
        ],
        "monai": lambda: _monai_ways(pairs),
        "surface-distance": lambda: [
            Way(
                name=NAME["deepmind"],
                peer="surface-distance",
                note="DeepMind's package: the same definitions; their reference implementation.",
                run=lambda: _score_all(score_by_deepmind, pairs),
            )
        ],
    }
    ways = wanted(job, makers)
    benchmark = Benchmark(
        title="Dice, HD95 and surface Dice of the same masks",
        unit="region",
        shown="seconds",
        settings={"regions": len(pairs), "tolerance in mm": SURFACE_TOLERANCE_MM},
        remarks=[
            "One process of one thread for all, masks in memory; the workers of the settings are "
            "not used. A prediction is the truth with a smooth random border and a few stray "
            "voxels, on the grid of the scan; each region of a case is scored, empty ones left "
            "out.",
            *compare(pairs, [way.name for way in ways]),
        ],
    )
    measure(job, benchmark, ways, save, warm_up=False)


def _monai_ways(pairs: Sequence[MaskPair]) -> list[Way]:
    functions = "compute_dice, compute_hausdorff_distance(percentile=95), compute_surface_dice"
    return [
        Way(
            name=NAME["monai"],
            peer="monai",
            note=(
                f"{functions}: distances between the centres of border voxels, each counting the "
                "same; the percentile is interpolated."
            ),
            run=lambda: _score_all(score_by_monai, pairs),
        ),
        Way(
            name=NAME["subvoxels"],
            peer="monai",
            note="The same with use_subvoxels=True, which weighs surface Dice by area.",
            run=lambda: _score_all(score_by_monai_subvoxels, pairs),
        ),
    ]


def mask_pairs(cache: Cache) -> list[MaskPair]:
    """All regions of at most `MAX_CASES` cases that neither truth nor prediction leaves empty."""
    pairs = []
    for case in np.unique(np.linspace(0, len(cache.cases) - 1, MAX_CASES).astype(int)).tolist():
        labels = true_labels(cache, case, whole=True)
        altered = alter(labels, np.random.default_rng(case))
        # Rounded, so that 1 mm is 1 mm to all: headers hold float32.
        depth, height, width = (round(length, 5) for length in cache.grid(case).spacing_mm)
        for region in sorted(REGIONS.keys() & set(cache.scheme(case).regions)):
            table = region_table(region)
            truth, prediction = table[labels], table[altered]
            if truth.any() and prediction.any():
                pairs.append(
                    MaskPair(
                        name=f"{cache.cases['id'][case].decode()}, {region}",
                        truth=truth,
                        prediction=prediction,
                        spacing_mm=(depth, height, width),
                    )
                )
    if not pairs:
        raise BratsError(f"{cache.path}: no case has a tumour whose mask could be scored.")
    return pairs


def alter(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moves the borders of labels by a smooth random field, and adds a few stray voxels.

    Args:
        labels: (Z, Y, X) uint8.
        rng: Decides both.

    Returns:
        (Z, Y, X) uint8, as a model might have predicted them.
    """
    noise = [
        ndimage.zoom(rng.normal(0, 2, [max(2, n // 12) for n in labels.shape]), scale, order=1)
        for scale in [[n / max(2, n // 12) for n in labels.shape]] * 3
    ]
    grid = np.indices(labels.shape)
    source = [
        np.clip(np.rint(axis + shift), 0, n - 1).astype(np.intp)
        for axis, shift, n in zip(grid, noise, labels.shape, strict=True)
    ]
    altered = labels[tuple(source)]
    corner = [int(rng.integers(0, max(1, n - 3))) for n in labels.shape]
    altered[tuple(slice(start, start + 3) for start in corner)] = 3
    return altered


def score_by_brats(pair: MaskPair) -> Scores:
    """All scores of `brats eval` but the lesion-wise ones."""
    scores = score_region(pair.prediction, pair.truth, pair.spacing_mm, lesionwise=False)
    return scores.dice, scores.hd95, scores.nsd


def score_by_deepmind(pair: MaskPair) -> Scores:
    """The three scores by the package surface-distance."""
    import surface_distance as sd

    distances = sd.compute_surface_distances(pair.truth, pair.prediction, pair.spacing_mm)
    return (
        float(sd.compute_dice_coefficient(pair.truth, pair.prediction)),
        float(sd.compute_robust_hausdorff(distances, 95)),
        float(sd.compute_surface_dice_at_tolerance(distances, SURFACE_TOLERANCE_MM)),
    )


def score_by_monai(pair: MaskPair, use_subvoxels: bool = False) -> Scores:
    """The three scores by MONAI's functions."""
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    prediction, truth = (
        torch.from_numpy(mask)[None, None] for mask in (pair.prediction, pair.truth)
    )
    spacing = list(pair.spacing_mm)
    common = {"include_background": True}
    return (
        float(compute_dice(prediction, truth, **common)),
        float(
            compute_hausdorff_distance(prediction, truth, percentile=95, spacing=spacing, **common)
        ),
        float(
            compute_surface_dice(
                prediction,
                truth,
                [SURFACE_TOLERANCE_MM],
                spacing=spacing,
                use_subvoxels=use_subvoxels,
                **common,
            )
        ),
    )


def score_by_monai_subvoxels(pair: MaskPair) -> Scores:
    """As `score_by_monai`, surface Dice weighed by area."""
    return score_by_monai(pair, use_subvoxels=True)


_SCORERS: Mapping[str, Callable[[MaskPair], Scores]] = {
    NAME["brats"]: score_by_brats,
    NAME["deepmind"]: score_by_deepmind,
    NAME["monai"]: score_by_monai,
    NAME["subvoxels"]: score_by_monai_subvoxels,
}


def _score_all(score: Callable[[MaskPair], Scores], pairs: Sequence[MaskPair]) -> int:
    for pair in pairs:
        score(pair)
    return len(pairs)


def compare(pairs: Sequence[MaskPair], names: Sequence[str]) -> list[str]:
    """Compares the scores of all ways with those of brats, which also warms them up.

    Returns:
        A sentence for each way, which names the regions whose scores differ though they have one
        definition.
    """
    ours = np.array([score_by_brats(pair) for pair in pairs])
    sentences = []
    for name in names:
        if name == NAME["brats"]:
            continue
        apart = np.abs(np.array([_SCORERS[name](pair) for pair in pairs]) - ours)
        dice, hd95, nsd = apart.max(axis=0)
        same = list(EQUAL[name])
        is_wrong = (apart[:, same] > np.array(TOLERANCE)[same]).any(axis=1)
        wrong = "; ".join(pair.name for pair, is_one in zip(pairs, is_wrong, strict=True) if is_one)
        sentences.append(
            f"{name} beside brats, largest differences: Dice {dice:.1g}, HD95 {hd95:.2g} mm, "
            f"surface Dice {nsd:.2g}. Of one definition: "
            f"{', '.join(METRICS[metric] for metric in same)}; "
            + (f"they DISAGREE for {wrong}." if wrong else "they agree within rounding.")
        )
    return sentences
