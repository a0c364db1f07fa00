"""Cases to look at: what a model, or masks made elsewhere, say of them beside scan and truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import region_table
from brats_train.evaluation.calibration import Table, probability_table
from brats_train.inference.case_prediction import predict_cached_case
from brats_train.inference.ensemble import Ensemble
from brats_train.inference.mask_files import grid_of, mask_path, read_mask
from brats_train.inference.postprocess import regions_of
from brats_train.report.display import box_of, choose_slices, on_scan_grid, to_grey

__all__ = ["CaseSlices", "Predict", "Predicted", "by_files", "by_model", "look_at", "tables_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """What is predicted of one case.

    masks          (K, Z, Y, X) bool on the scan's own grid
    probabilities  (n, K, Y, X) float32 of the cached slices, None for masks made elsewhere
    """

    masks: np.ndarray
    probabilities: np.ndarray | None


Predict = Callable[[Cache, int], Predicted]


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseSlices:
    """Axial slices of one case, rows towards posterior, columns towards left.

    places      (n,) z of each
    depth       number of slices of the scan
    images      (n, C, Y, X) uint8, black outside the brain
    regions     the K regions of the masks
    prediction  (n, K, Y, X) bool
    truth       likewise, None where nobody drew one; all False for a region that is not in `known`
    known       the regions that the truth knows
    aspect      height of a pixel divided by its width
    """

    case: str
    modalities: tuple[str, ...]
    places: np.ndarray
    depth: int
    images: np.ndarray
    regions: tuple[str, ...]
    prediction: np.ndarray
    truth: np.ndarray | None
    known: tuple[str, ...]
    aspect: float

    def widest(self, region: str) -> int:
        """The slice where `region` is largest in truth, or in the prediction where it has none."""
        masks = self.prediction if self.truth is None or not self.truth.any() else self.truth
        return int(masks[:, self.regions.index(region)].sum(axis=(1, 2)).argmax())

    def only(self, at: int) -> CaseSlices:
        """Slice number `at` alone, cut to what is in it."""
        number = slice(at, at + 1)
        one = replace(
            self,
            places=self.places[number],
            images=self.images[number],
            prediction=self.prediction[number],
            truth=None if self.truth is None else self.truth[number],
        )
        return one.cut()

    def cut(self) -> CaseSlices:
        """Cut to the head and to masks outside it."""
        shown = [self.images, self.prediction, *([] if self.truth is None else [self.truth])]
        rows, columns = box_of(np.concatenate([part.any(axis=1) for part in shown]))
        return replace(
            self,
            images=self.images[:, :, rows, columns],
            prediction=self.prediction[:, :, rows, columns],
            truth=None if self.truth is None else self.truth[:, :, rows, columns],
        )


def by_model(ensemble: Ensemble, rules: Mapping[str, Any]) -> Predict:
    """Predicts with a model as `brats eval` does; `rules` has its summary's threshold, tta and
    min_component_voxels."""

    def predict(cache: Cache, index: int) -> Predicted:
        prediction = predict_cached_case(cache, index, ensemble, rules["tta"])
        masks = regions_of(
            prediction.probabilities,
            ensemble.spec.regions,
            prediction.z_indices,
            cache.depth(index),
            threshold=rules["threshold"],
            min_component_voxels=rules["min_component_voxels"],
        )
        return Predicted(masks=masks, probabilities=prediction.probabilities)

    return predict


def by_files(folder: Path, regions: tuple[str, ...]) -> Predict:
    """Takes the masks in `folder`, `<case>.nii.gz` or `<case>.nii`, as `brats eval --predictions`
    does."""

    def predict(cache: Cache, index: int) -> Predicted:
        case = _id_of(cache, index)
        candidates = [mask_path(folder, case, suffix) for suffix in (".nii.gz", ".nii")]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            raise BratsError(f"{case}: {candidates[0]} was scored and is gone. Put it back.")
        labels = read_mask(path, case, grid_of(cache, index), cache.scheme(index))
        masks = np.array([region_table(region)[labels] for region in regions])
        return Predicted(masks=masks, probabilities=None)

    return predict


def look_at(
    cache: Cache,
    index: int,
    predicted: Predicted,
    labels: np.ndarray | None,
    regions: tuple[str, ...],
    limit: int,
) -> CaseSlices:
    """Up to `limit` slices of a case that show best what is true and what is predicted.

    labels  the truth as `truth.true_labels` gives it, None where nobody drew one

    Raises `BratsError` where no slice is cached.
    """
    rows, places = _rows(cache, index)
    if not len(rows):
        raise BratsError(f"{_id_of(cache, index)}: {cache.path} holds no slice of it.")
    truth = None if labels is None else _truth(cache, index, labels, regions)
    found = predicted.masks[:, places]
    true = np.zeros_like(found) if truth is None else truth[:, places]
    counts = (found | true).any(axis=0).sum(axis=(1, 2))
    main = (true if true.any() else found)[0].sum(axis=(1, 2))
    chosen = choose_slices(places, counts, int(places[main.argmax()]), limit)
    grid = grid_of(cache, index)
    _, height, width = grid.canonical_shape
    _, dy, dx = grid.spacing_mm
    prepared = np.asarray(cache.images[rows[np.isin(places, chosen)]])
    whole = CaseSlices(
        case=_id_of(cache, index),
        modalities=tuple(cache.preparation.modalities),
        places=chosen,
        depth=cache.depth(index),
        images=to_grey(*on_scan_grid(prepared, height, width, cache.preparation.fit)),
        regions=regions,
        prediction=predicted.masks[:, chosen].swapaxes(0, 1),
        truth=None if truth is None else truth[:, chosen].swapaxes(0, 1),
        known=tuple(r for r in regions if truth is not None and r in cache.scheme(index).regions),
        aspect=dy / dx,
    )
    return whole.cut()


def tables_of(
    cache: Cache,
    index: int,
    predicted: Predicted,
    labels: np.ndarray,
    regions: tuple[str, ...],
) -> dict[str, Table]:
    """The table of probabilities (see `probabilities`) of each region, over the cached slices; none
    for masks made elsewhere. `labels` as for `look_at`."""
    if predicted.probabilities is None:
        return {}
    cached = labels[_rows(cache, index)[1]]
    return {
        region: probability_table(predicted.probabilities[:, channel], region_table(region)[cached])
        for channel, region in enumerate(regions)
        if region in cache.scheme(index).regions
    }


def _truth(cache: Cache, index: int, labels: np.ndarray, regions: tuple[str, ...]) -> np.ndarray:
    """(K, Z, Y, X) bool, all False for a region that the case's labels do not know."""
    known = cache.scheme(index).regions
    return np.array([region_table(region)[labels] & (region in known) for region in regions])


def _rows(cache: Cache, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a case and their z."""
    span = cache.row_slice(index)
    rows = np.arange(span.start, span.stop)
    return rows, cache.slices["z"][rows]


def _id_of(cache: Cache, index: int) -> str:
    name: str = cache.cases["id"][index].decode()
    return name
