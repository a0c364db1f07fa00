"""Scoring a run on a split of its cache: by case on the scan's own grid, and by slice."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from brats_cache.errors import BratsError, printable
from brats_cache.files import write_atomically
from brats_cache.labels import region_table
from brats_cache.nifti import Orientation
from brats_cache.store import Cache
from brats_cache.truth import true_labels

from .distributed import World
from .inference import Ensemble, to_native
from .intervals import bootstrap_interval
from .loader import case_splits, rows_by_rule
from .metrics import RegionScores, score_region

__all__ = [
    "CaseScores",
    "Evaluation",
    "EvaluationJob",
    "describe",
    "evaluate",
    "strict_json",
    "write_evaluation",
]

EMPTY_RULES = ("official", "nan")
QUANTILES = (0.05, 0.25, 0.75, 0.95)


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What `brats eval` was asked to do.

    rows   rule of the rows that the slice-wise score counts, as in the recipe
    fold   as in training
    """

    split: str
    rows: str
    fold: int | None
    tta: bool
    threshold: float
    empty: str


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseScores:
    """The scores of one case.

    regions          of each region
    slice_ious       of each region, IoU of each judged slice on the cache's grid
    uncached_slices  slices of the scan that are not in the cache and count as background
    uncached_voxels  true voxels in them, which no score sees
    """

    case: str
    regions: dict[str, RegionScores]
    slice_ious: dict[str, list[float]]
    uncached_slices: int
    uncached_voxels: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """All cases of a split, in order of their ids, and the summary."""

    cases: tuple[CaseScores, ...]
    summary: dict[str, Any]


def evaluate(
    job: EvaluationJob,
    caches: Sequence[Cache],
    ensemble: Ensemble,
    world: World,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """Scores every case of the split; ranks share the cases out and all receive the result.

    Raises `BratsError` for a split without cases, or without masks.
    """
    tasks = _cases_of(job, caches)
    mine = tasks[world.rank :: world.size]
    scored = []
    for done, (cache, index) in enumerate(mine, start=1):
        scored.append(_score_case(job, cache, index, ensemble))
        progress(done, len(mine))
    everyone = [case for part in world.gather(scored) for case in part]
    everyone.sort(key=lambda scores: scores.case)
    return Evaluation(cases=tuple(everyone), summary=_summarise(job, caches, ensemble, everyone))


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Writes cases.csv and summary.json, replacing an earlier evaluation's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BratsError(f"{folder}: cannot be made ({error.strerror}).") from error
    text = io.StringIO()
    names = [field.name for field in fields(RegionScores)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "region", *names])
    for case in evaluation.cases:
        for region, scores in case.regions.items():
            writer.writerow([case.case, region, *(_cell(getattr(scores, name)) for name in names)])
    write_atomically(folder / "cases.csv", text.getvalue().encode())
    write_atomically(
        folder / "summary.json",
        (json.dumps(strict_json(evaluation.summary), indent=2) + "\n").encode(),
    )


def _cases_of(job: EvaluationJob, caches: Sequence[Cache]) -> list[tuple[Cache, int]]:
    tasks = [
        (cache, int(index))
        for cache in caches
        for index in np.flatnonzero(case_splits(cache, job.fold) == job.split)
    ]
    names = ", ".join(str(cache.path) for cache in caches)
    if not tasks:
        raise BratsError(f"{names}: no case in split {job.split}. Look with brats info.")
    unmasked = [
        cache.cases["id"][i].decode() for cache, i in tasks if not cache.cases["has_mask"][i]
    ]
    if unmasked:
        raise BratsError(
            f"--split {job.split}: {len(unmasked)} of {len(tasks)} cases have no mask to be scored "
            f"against ({', '.join(unmasked[:3])}). Segment them with brats predict."
        )
    return tasks


def _score_case(job: EvaluationJob, cache: Cache, index: int, ensemble: Ensemble) -> CaseScores:
    record = cache.cases[index]
    first, count = int(record["first_row"]), int(record["rows"])
    rows = slice(first, first + count)
    places = cache.slices["z"][rows]
    fit = cache.preparation.fit
    truth = true_labels(cache, index)
    masks = np.asarray(cache.masks[rows])[:, 0]
    depth, height, width = truth.shape
    native = np.zeros((len(ensemble.segmenter.regions), depth, height, width), bool)
    judged = np.isin(np.arange(first, first + count), rows_by_rule(cache, index, job.rows))
    slice_ious: dict[str, list[float]] = {region: [] for region in ensemble.segmenter.regions}
    if count:
        probabilities = ensemble.probabilities(np.asarray(cache.images[rows]), job.tta)
        on_grid = to_native(probabilities, height, width, fit) >= job.threshold
        native[:, places] = on_grid.cpu().numpy().swapaxes(0, 1)
        predicted = (probabilities >= job.threshold).cpu().numpy()[judged]
        for channel, region in enumerate(ensemble.segmenter.regions):
            target = region_table(region)[masks[judged]]
            slice_ious[region] = _slice_ious(predicted[:, channel], target)
    return CaseScores(
        case=record["id"].decode(),
        regions={
            region: score_region(
                native[channel],
                region_table(region)[truth],
                _spacing(record["affine"]),
                job.empty,  # type: ignore[arg-type]
            )
            for channel, region in enumerate(ensemble.segmenter.regions)
        },
        slice_ious=slice_ious,
        uncached_slices=depth - count,
        uncached_voxels=int(record["native_voxel_counts"][1:].sum()) - int(np.count_nonzero(truth)),
    )


def _spacing(affine: np.ndarray) -> tuple[float, float, float]:
    """(dz, dy, dx) in mm, canonical order."""
    columns = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    dz, dy, dx = (float(columns[axis]) for axis in Orientation.of(affine).permutation)
    return dz, dy, dx


def _slice_ious(predicted: np.ndarray, target: np.ndarray) -> list[float]:
    """IoU of each of n slices, (n, S, S) bool; an empty prediction of an empty truth counts 1."""
    overlap = np.count_nonzero(predicted & target, axis=(1, 2))
    union = np.count_nonzero(predicted | target, axis=(1, 2))
    return [float(value) for value in np.where(union == 0, 1.0, overlap / np.maximum(union, 1))]


def _summarise(
    job: EvaluationJob, caches: Sequence[Cache], ensemble: Ensemble, cases: Sequence[CaseScores]
) -> dict[str, Any]:
    regions = ensemble.segmenter.regions
    by_slice = {
        region: _mean(value for case in cases for value in case.slice_ious[region])
        for region in regions
    }
    return {
        "split": job.split,
        "num_cases": len(cases),
        "slice_iou": _mean(by_slice.values()),
        "num_slices": sum(len(case.slice_ious[regions[0]]) for case in cases),
        "slice_rows": job.rows,
        "regions": {
            region: {
                "slice_iou": by_slice[region],
                **_summarise_region([case.regions[region] for case in cases]),
            }
            for region in regions
        },
        "threshold": job.threshold,
        "tta": job.tta,
        "empty": job.empty,
        "amp": ensemble.amp,
        "num_uncached_slices": sum(case.uncached_slices for case in cases),
        "num_uncached_true_voxels": sum(case.uncached_voxels for case in cases),
        "checkpoints": [str(path) for path in ensemble.paths],
        "caches": [{"path": str(cache.path), "fingerprint": cache.fingerprint} for cache in caches],
    }


def _summarise_region(scores: Sequence[RegionScores]) -> dict[str, Any]:
    """Mean with 95 % interval, median and quantiles of each metric; counts of empty masks."""
    summary: dict[str, Any] = {
        "num_empty_truth": sum(one.true_voxels == 0 for one in scores),
        "num_empty_prediction": sum(one.predicted_voxels == 0 for one in scores),
        "num_both_empty": sum(one.true_voxels == one.predicted_voxels == 0 for one in scores),
    }
    for field in fields(RegionScores):
        values = [getattr(one, field.name) for one in scores]
        known = [float(value) for value in values if value is not None and not math.isnan(value)]
        if not known:
            summary[field.name] = {"mean": None, "num_cases": 0}
            continue
        low, high = bootstrap_interval(known)
        summary[field.name] = {
            "mean": _mean(known),
            "low": low,
            "high": high,
            "median": float(np.median(known)),
            "quantiles": {str(q): float(np.quantile(known, q)) for q in QUANTILES},
            "num_cases": len(known),
        }
    return summary


def _mean(values: Iterable[float]) -> float:
    """Exactly rounded, so independent of order; NaN without a value."""
    known = list(values)
    return math.fsum(known) / len(known) if known else math.nan


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def describe(evaluation: Evaluation, num_worst: int = 3) -> str:
    """The means with their intervals and the worst cases, for a terminal of 80 columns."""
    summary = evaluation.summary
    lines = [
        f"{summary['num_cases']} cases of {summary['split']}, threshold {summary['threshold']:g}; "
        "mean [95 % interval] over cases on the scan's own grid",
        f"{'region':<8}{'Dice':<22}{'IoU':<22}{'HD95 mm':<22}{'slice IoU':<9}",
    ]
    for region, scores in summary["regions"].items():
        cells = "".join(f"{_interval(scores[name]):<22}" for name in ("dice", "iou", "hd95"))
        lines.append(f"{region:<8}{cells}{scores['slice_iou']:<9.4f}")
    region = next(iter(summary["regions"]))
    worst = sorted(evaluation.cases, key=lambda case: case.regions[region].dice)[:num_worst]
    named = ", ".join(f"{printable(case.case)} ({case.regions[region].dice:.3f})" for case in worst)
    lines.append(f"lowest {region} Dice: {named}")
    if summary["num_uncached_true_voxels"]:
        lines.append(
            f"Note: {summary['num_uncached_true_voxels']} true voxels lie in slices that are not "
            "in the cache; no score sees them."
        )
    return "\n".join(lines)


def _interval(score: Mapping[str, float]) -> str:
    if score["mean"] is None:
        return "undefined"
    return f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def strict_json(value: Any) -> Any:
    """`value` with NaN as None, written null: JSON has no other word for it."""
    if isinstance(value, Mapping):
        return {key: strict_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
