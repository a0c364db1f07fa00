"""Scoring one case, from probabilities or from a mask made elsewhere.

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
from brats_train.evaluation.slice_iou import slice_ious
from brats_train.inference.mask_files import encode_mask, grid_of, read_mask
from brats_train.inference.postprocess import regions_of, source_labels
from brats_train.models.postprocessing import Postprocessing

__all__ = ["CaseProbabilities", "CaseScores", "ScoringRules", "ScoringTask", "score_case"]


@dataclass(frozen=True, kw_only=True)
class ScoringRules:
    """How probabilities become masks, and masks become scores.

    Attributes:
        regions: The regions to score; a case whose labels do not know one has no score of it.
        slice_rows: Rule of the rows that the slice-wise score counts, as in the recipe.
        postprocessing: How the probabilities of a volume become its masks.
        empty: Row of `metrics.EMPTY_MASKS`.
    """

    regions: tuple[str, ...]
    slice_rows: str
    postprocessing: Postprocessing
    empty: EmptyRule


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseProbabilities:
    """What a model predicts for one case.

    Attributes:
        volume: (n, K, Y, X) float32 probabilities of the case's rows on the scan's own grid, 0
            outside the brain.
        slices: (m, K, S, S) bool, the masks of the rows that the slice-wise score counts, on the
            cache's grid.
    """

    volume: np.ndarray
    slices: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoringTask:
    """One case to score, in this process or another.

    Attributes:
        cache_path: The cache that holds it.
        case: Its number in that cache.
        rules: How to score it.
        prediction: What a model predicts, or the file of a mask made elsewhere.
        save_to: Where to write the predicted mask, None for nowhere.
    """

    cache_path: Path
    case: int
    rules: ScoringRules
    prediction: CaseProbabilities | Path
    save_to: Path | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseScores:
    """The scores of one case, each by region.

    Attributes:
        case: Id of the case.
        patient: Id of its patient, who may have several cases.
        regions: The scores of each region's volume.
        slice_ious: IoU of each counted slice on the cache's grid.
        tables: See `calibration.probability_table`, over the cached slices; none for masks made
            elsewhere.
        uncached_slices: Slices of the scan that are not in the cache and count as background.
        uncached_voxels: True voxels in them, which no score sees.
    """

    case: str
    patient: str
    regions: dict[str, RegionScores]
    slice_ious: dict[str, list[float]]
    tables: dict[str, Table]
    uncached_slices: int
    uncached_voxels: int


def score_case(task: ScoringTask) -> CaseScores:
    """Scores one case, and writes its mask where that is asked for.

    Raises:
        BratsError: The truth or a mask made elsewhere cannot be had.
    """
    cache = _opened(task.cache_path, task.cache_path.stat().st_mtime_ns)
    if isinstance(task.prediction, Path):
        return _score_file(task, cache, task.prediction)
    return _score_model(task, cache, task.prediction)


def _score_model(task: ScoringTask, cache: Cache, prediction: CaseProbabilities) -> CaseScores:
    rules, grid = task.rules, grid_of(cache, task.case)
    z_indices = _z_indices(cache, task.case)
    truth = true_labels(cache, task.case)
    masks = regions_of(
        prediction.volume,
        rules.regions,
        z_indices,
        len(truth),
        rules.postprocessing,
    )
    if task.save_to is not None:
        mask = source_labels(masks, rules.regions, cache.scheme(task.case))
        write_atomically(task.save_to, encode_mask(mask, grid))
    true_slices = np.array(cache.masks[rows_by_rule(cache, task.case, rules.slice_rows)])[:, 0]
    regions: dict[str, RegionScores] = {}
    ious: dict[str, list[float]] = {}
    tables: dict[str, Table] = {}
    for channel, region in enumerate(rules.regions):
        if region not in cache.scheme(task.case).regions:
            continue
        target = region_table(region)[truth]
        regions[region] = score_region(masks[channel], target, grid.spacing_mm, rules.empty)
        ious[region] = slice_ious(
            prediction.slices[:, channel], region_table(region)[true_slices]
        ).tolist()
        tables[region] = probability_table(prediction.volume[:, channel], target[z_indices])
    return CaseScores(
        case=cache.cases["id"][task.case].decode(),
        patient=cache.cases["patient"][task.case].decode(),
        regions=regions,
        slice_ious=ious,
        tables=tables,
        uncached_slices=len(truth) - len(z_indices),
        uncached_voxels=_num_labelled(cache, task.case) - int(np.count_nonzero(truth)),
    )


def _score_file(task: ScoringTask, cache: Cache, path: Path) -> CaseScores:
    """A mask made elsewhere covers the whole scan, and so must its truth."""
    rules, grid = task.rules, grid_of(cache, task.case)
    case, scheme = cache.cases["id"][task.case].decode(), cache.scheme(task.case)
    labels = read_mask(path, case, grid, scheme)
    truth = true_labels(cache, task.case, whole=True)
    rows = rows_by_rule(cache, task.case, rules.slice_rows)
    slices = fit_masks(labels[cache.slices["z"][rows]], cache.shape[-1], cache.preparation.fit)
    true_slices = np.array(cache.masks[rows])[:, 0]
    known = [region for region in rules.regions if region in scheme.regions]
    return CaseScores(
        case=case,
        patient=cache.cases["patient"][task.case].decode(),
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
            region: slice_ious(
                region_table(region)[slices], region_table(region)[true_slices]
            ).tolist()
            for region in known
        },
        tables={},
        uncached_slices=0,
        uncached_voxels=0,
    )


def _z_indices(cache: Cache, case: int) -> np.ndarray:
    """The z of each row of a case."""
    return np.asarray(cache.slices["z"][cache.row_slice(case)])


def _num_labelled(cache: Cache, case: int) -> int:
    return int(cache.cases["native_voxel_counts"][case, 1:].sum())


@lru_cache(maxsize=8)
def _opened(path: Path, mtime_ns: int) -> Cache:
    """A cache, its tables read once a process; `mtime_ns` tells a new file of the same name."""
    return open_cache(path)
