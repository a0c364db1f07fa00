"""Scoring one case, from probabilities or from a mask made elsewhere.

It needs numpy alone, so that processes which score cases beside the model start without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from brats_cache.common.files import write_atomically
from brats_cache.format.reader import Cache, open_cache
from brats_cache.format.truth import true_labels
from brats_cache.imaging.labels import region_table
from brats_cache.imaging.preprocess import fit_masks
from brats_train.data.selection import rows_by_rule
from brats_train.evaluation.calibration import Table
from brats_train.evaluation.case_masks import (
    CaseMasks,
    CaseProbabilities,
    MaskRules,
    decode_masks,
    encode_masks,
    make_masks,
    slice_rows_of,
)
from brats_train.evaluation.mask_store import seal
from brats_train.evaluation.metrics import EmptyRule, RegionScores, score_region
from brats_train.evaluation.slice_iou import slice_ious
from brats_train.inference.mask_files import encode_mask, read_mask
from brats_train.inference.postprocess import source_labels

__all__ = ["CaseScores", "ScoringTask", "hold_one_label", "score_case"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoringTask:
    """One case to score, in this process or another.

    Attributes:
        cache_path: The cache that holds it.
        case: Its number in that cache.
        rules: How its masks are made.
        empty: Row of `metrics.EMPTY_MASKS`.
        prediction: What a model predicts, or what is stored of that (`case_masks.encode_masks`), or
            the file of a mask made elsewhere.
        save_to: Where to write the predicted mask, None for nowhere.
        store_to: Where to store the masks of a model's prediction, and under which key; None for
            nowhere.
    """

    cache_path: Path
    case: int
    rules: MaskRules
    empty: EmptyRule
    prediction: CaseProbabilities | bytes | Path
    save_to: Path | None = None
    store_to: tuple[Path, bytes] | None = None


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
        labels: The probability of each label of the case; empty where none is told.
        expected_dice: Of the mask of each region; empty for masks made elsewhere.
    """

    case: str
    patient: str
    regions: dict[str, RegionScores]
    slice_ious: dict[str, list[float]]
    tables: dict[str, Table]
    uncached_slices: int
    uncached_voxels: int
    labels: tuple[float, ...] = ()
    expected_dice: Mapping[str, float] = field(default_factory=dict)


def score_case(task: ScoringTask) -> CaseScores:
    """Scores one case, and writes its mask where that is asked for.

    A region that the labels of the case do not know has no score.

    Raises:
        BratsError: The truth or a mask made elsewhere cannot be had.
    """
    cache = _opened(task.cache_path, task.cache_path.stat().st_mtime_ns)
    if isinstance(task.prediction, Path):
        return _score_file(task, cache, task.prediction)
    truth = true_labels(cache, task.case)
    if isinstance(task.prediction, bytes):
        masks = decode_masks(task.prediction, cache, task.case, task.rules)
    else:
        masks = make_masks(cache, task.case, task.rules, task.prediction, truth)
    if task.store_to is not None:
        path, key = task.store_to
        write_atomically(path, seal(key, encode_masks(masks)))
    return _score_masks(task, cache, masks, truth)


def _score_masks(
    task: ScoringTask, cache: Cache, masks: CaseMasks, truth: np.ndarray
) -> CaseScores:
    rules, grid, scheme = task.rules, cache.grid(task.case), cache.scheme(task.case)
    if task.save_to is not None:
        mask = source_labels(masks.volumes, rules.regions, scheme)
        write_atomically(task.save_to, encode_mask(mask, grid))
    true_slices = np.array(cache.masks[slice_rows_of(cache, task.case, rules)])[:, 0]
    regions: dict[str, RegionScores] = {}
    ious: dict[str, list[float]] = {}
    for channel, region in enumerate(rules.regions):
        if region not in scheme.regions:
            continue
        target = region_table(region)[truth]
        regions[region] = score_region(masks.volumes[channel], target, grid.spacing_mm, task.empty)
        ious[region] = slice_ious(
            masks.slices[:, channel], region_table(region)[true_slices]
        ).tolist()
    return CaseScores(
        case=cache.case_id(task.case),
        patient=cache.cases["patient"][task.case].decode(),
        regions=regions,
        slice_ious=ious,
        tables=masks.tables,
        uncached_slices=len(truth) - int(cache.cases["rows"][task.case]),
        uncached_voxels=_num_labelled(cache, task.case) - int(np.count_nonzero(truth)),
        labels=tuple(masks.labels.tolist()),
        expected_dice={
            region: float(masks.expected_dice[rules.regions.index(region)]) for region in regions
        },
    )


def _score_file(task: ScoringTask, cache: Cache, path: Path) -> CaseScores:
    """Scores a mask file against the truth of the whole scan."""
    rules, grid = task.rules, cache.grid(task.case)
    case, scheme = cache.case_id(task.case), cache.scheme(task.case)
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
                task.empty,
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


def _num_labelled(cache: Cache, case: int) -> int:
    return int(cache.cases["native_voxel_counts"][case, 1:].sum())


@lru_cache(maxsize=8)
def _opened(path: Path, mtime_ns: int) -> Cache:
    """A cache, its tables read once a process; `mtime_ns` tells a new file of the same name."""
    return open_cache(path)


def hold_one_label(cases: Sequence[CaseScores]) -> bool:
    """Whether masks tell no regions apart where the truth does.

    So it is where a mask of the whole tumour, of 0 and 1, is read as one of BraTS's labels.

    Args:
        cases: The scores of all cases.
    """
    parts = [
        (whole, case.regions[name])
        for case in cases
        for name in ("tc", "et")
        if (whole := case.regions.get("wt")) and name in case.regions
    ]
    is_one = all(part.predicted_voxels in (0, whole.predicted_voxels) for whole, part in parts)
    is_told = any(0 < part.true_voxels < whole.true_voxels for whole, part in parts)
    return is_one and is_told and any(whole.predicted_voxels for whole, _ in parts)
