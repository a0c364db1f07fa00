"""Scoring one case: everything that is left to do once the model has spoken, or without one.

It needs numpy alone, so that processes which score cases beside the model start without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from brats_cache.common.files import write_atomically
from brats_cache.format.reader import Cache, open_cache
from brats_cache.format.truth import true_labels
from brats_cache.imaging.labels import region_table
from brats_cache.imaging.preprocess import fit_masks
from brats_train.data.selection import rows_by_rule
from brats_train.evaluation.calibration import Table, probability_table
from brats_train.evaluation.metrics import EmptyRule, RegionScores, score_region
from brats_train.inference.postprocess import (
    encode_mask,
    grid_of,
    read_mask,
    regions_of,
    source_labels,
)

__all__ = ["CaseScores", "Predicted", "Rules", "ScoringTask", "score_case"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What turns probabilities into masks, and masks into scores.

    regions               to be scored; a case whose labels do not know one has no score of it
    slice_rows            rule of the rows that the slice-wise score counts, as in the recipe
    threshold             probability from which a voxel of a volume belongs to a region
    min_component_voxels  smaller components of a volume's region are dropped
    empty                 row of `metrics.EMPTY_MASKS`
    """

    regions: tuple[str, ...]
    slice_rows: str
    threshold: float
    min_component_voxels: int
    empty: EmptyRule


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """What a model says of one case.

    native    (n, K, Y, X) float32 probabilities of the case's rows on the scan's own grid
    on_cache  (m, K, S, S) bool, masks of the judged rows on the cache's grid
    """

    native: np.ndarray
    on_cache: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoringTask:
    """One case to be scored, in this process or another.

    predicted  what a model says, or the file of a mask made elsewhere
    save_to    where the predicted mask is to be written
    """

    cache_path: Path
    case: int
    rules: Rules
    predicted: Predicted | Path
    save_to: Path | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseScores:
    """The scores of one case, each by region.

    slice_ious       IoU of each judged slice on the cache's grid, an empty prediction of an empty
                     truth counting 1
    tables           see `probabilities`, over the cached slices; none for masks made elsewhere
    uncached_slices  slices of the scan that are not in the cache and count as background
    uncached_voxels  true voxels in them, which no score sees
    """

    case: str
    regions: dict[str, RegionScores]
    slice_ious: dict[str, list[float]]
    tables: dict[str, Table]
    uncached_slices: int
    uncached_voxels: int


def score_case(task: ScoringTask) -> CaseScores:
    """Scores one case, and writes its mask where that is asked for.

    Raises `BratsError` where the truth or a mask made elsewhere cannot be had.
    """
    cache = _opened(task.cache_path, task.cache_path.stat().st_mtime_ns)
    if isinstance(task.predicted, Path):
        return _score_file(task, cache, task.predicted)
    return _score_model(task, cache, task.predicted)


def _score_model(task: ScoringTask, cache: Cache, predicted: Predicted) -> CaseScores:
    rules, grid = task.rules, grid_of(cache, task.case)
    rows, places = _rows(cache, task.case)
    truth = true_labels(cache, task.case)
    masks = regions_of(
        predicted.native,
        rules.regions,
        places,
        len(truth),
        threshold=rules.threshold,
        min_component_voxels=rules.min_component_voxels,
    )
    if task.save_to is not None:
        mask = source_labels(masks, rules.regions, cache.scheme(task.case))
        write_atomically(task.save_to, encode_mask(mask, grid))
    judged = np.asarray(cache.masks[rows_by_rule(cache, task.case, rules.slice_rows)])[:, 0]
    regions: dict[str, RegionScores] = {}
    slice_ious: dict[str, list[float]] = {}
    tables: dict[str, Table] = {}
    for channel, region in enumerate(rules.regions):
        if region not in cache.scheme(task.case).regions:
            continue
        target = region_table(region)[truth]
        regions[region] = score_region(masks[channel], target, grid.spacing_mm, rules.empty)
        slice_ious[region] = _slice_ious(
            predicted.on_cache[:, channel], region_table(region)[judged]
        )
        tables[region] = probability_table(predicted.native[:, channel], target[places])
    return CaseScores(
        case=cache.cases["id"][task.case].decode(),
        regions=regions,
        slice_ious=slice_ious,
        tables=tables,
        uncached_slices=len(truth) - len(rows),
        uncached_voxels=_num_labelled(cache, task.case) - int(np.count_nonzero(truth)),
    )


def _score_file(task: ScoringTask, cache: Cache, path: Path) -> CaseScores:
    """A mask made elsewhere covers the whole scan, and so must its truth."""
    rules, grid = task.rules, grid_of(cache, task.case)
    case, scheme = cache.cases["id"][task.case].decode(), cache.scheme(task.case)
    labels = read_mask(path, case, grid, scheme)
    truth = true_labels(cache, task.case, whole=True)
    judged = rows_by_rule(cache, task.case, rules.slice_rows)
    fitted = fit_masks(labels[cache.slices["z"][judged]], cache.shape[-1], cache.preparation.fit)
    true_fitted = np.asarray(cache.masks[judged])[:, 0]
    known = [region for region in rules.regions if region in scheme.regions]
    return CaseScores(
        case=case,
        regions={
            region: score_region(
                region_table(region)[labels],
                region_table(region)[truth],
                grid.spacing_mm,
                rules.empty,
            )
            for region in known
        },
        slice_ious={
            region: _slice_ious(region_table(region)[fitted], region_table(region)[true_fitted])
            for region in known
        },
        tables={},
        uncached_slices=0,
        uncached_voxels=0,
    )


def _rows(cache: Cache, case: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a case and their z."""
    first, count = int(cache.cases["first_row"][case]), int(cache.cases["rows"][case])
    rows = np.arange(first, first + count)
    return rows, cache.slices["z"][rows]


def _num_labelled(cache: Cache, case: int) -> int:
    return int(cache.cases["native_voxel_counts"][case, 1:].sum())


def _slice_ious(predicted: np.ndarray, target: np.ndarray) -> list[float]:
    """IoU of each of n slices, (n, S, S) bool; an empty prediction of an empty truth counts 1."""
    overlap = np.count_nonzero(predicted & target, axis=(1, 2))
    union = np.count_nonzero(predicted | target, axis=(1, 2))
    return [float(value) for value in np.where(union == 0, 1.0, overlap / np.maximum(union, 1))]


@lru_cache(maxsize=8)
def _opened(path: Path, mtime_ns: int) -> Cache:
    """A cache, its tables read once a process; `mtime_ns` tells a new file of the same name."""
    return open_cache(path)
