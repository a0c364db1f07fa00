"""Slices of scored cases with truth and prediction, of a model or of masks made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_cache.imaging.bounding_box import bounding_box
from brats_cache.imaging.labels import region_table
from brats_train.evaluation.calibration import Table
from brats_train.evaluation.case_masks import MaskRules, decode_masks, encode_masks, make_masks
from brats_train.evaluation.evaluate import predict_probabilities
from brats_train.evaluation.mask_store import InferenceSettings, MaskStore, key_of
from brats_train.inference.case_models import CaseModels
from brats_train.inference.mask_files import mask_path, read_mask
from brats_train.report.display import (
    choose_slices,
    choose_window,
    on_scan_grid,
    to_grey,
    without_tumour,
)

__all__ = [
    "CaseSlices",
    "Predict",
    "Predicted",
    "files_predictor",
    "model_predictor",
    "select_slices",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """The prediction for one case.

    Attributes:
        masks: (K, Z, Y, X) bool on the scan's own grid.
        tables: Probabilities against the truth by region, see `evaluation.calibration`; none for
            masks made elsewhere, nor without a truth.
    """

    masks: np.ndarray
    tables: Mapping[str, Table]


# Of a case, by its number in a cache, and its truth, as `true_labels` returns it, where it has one.
Predict = Callable[[Cache, int, np.ndarray | None], Predicted]


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseSlices:
    """Axial slices of one case, rows towards posterior, columns towards left.

    Attributes:
        case: Its id.
        modalities: The C channels of `images`.
        z_indices: (n,) int, z of each slice in the scan.
        depth: Number of slices of the scan.
        is_whole: Whether these are all slices of the case that are cached.
        images: (n, C, Y, X) uint8, black outside the brain.
        windows: (C, 2) float, the grey values of `images` to show black and white.
        regions: The K regions of the masks.
        prediction: (n, K, Y, X) bool.
        truth: (n, K, Y, X) bool, all False for a region that is not in `known`; None for a case
            without a mask.
        known: The regions that the labels of the truth define.
        pixel_mm: Height and width of a pixel.
    """

    case: str
    modalities: tuple[str, ...]
    z_indices: np.ndarray
    depth: int
    is_whole: bool
    images: np.ndarray
    windows: np.ndarray
    regions: tuple[str, ...]
    prediction: np.ndarray
    truth: np.ndarray | None
    known: tuple[str, ...]
    pixel_mm: tuple[float, float]

    @property
    def aspect(self) -> float:
        """Height of a pixel divided by its width."""
        return self.pixel_mm[0] / self.pixel_mm[1]

    def widest(self, region: str) -> int:
        """Index of the slice where a region is largest in the truth, else in the prediction."""
        masks = self.prediction if self.truth is None or not self.truth.any() else self.truth
        return int(masks[:, self.regions.index(region)].sum(axis=(1, 2)).argmax())

    def only(self, index: int) -> CaseSlices:
        """The slice at `index` alone, cropped."""
        number = slice(index, index + 1)
        one = replace(
            self,
            z_indices=self.z_indices[number],
            images=self.images[number],
            prediction=self.prediction[number],
            truth=None if self.truth is None else self.truth[number],
        )
        return one.crop()

    def crop(self) -> CaseSlices:
        """Crops to the brain and all masks."""
        shown = [self.images, self.prediction, *([] if self.truth is None else [self.truth])]
        used = np.any([part.any(axis=(0, 1)) for part in shown], axis=0)
        if not used.any():
            return self
        rows, columns = bounding_box(used, margin=2)
        return replace(
            self,
            images=self.images[:, :, rows, columns],
            prediction=self.prediction[:, :, rows, columns],
            truth=None if self.truth is None else self.truth[:, :, rows, columns],
        )


def model_predictor(
    models: CaseModels, slice_rows: str, scored: InferenceSettings, store: MaskStore
) -> Predict:
    """Makes a function that predicts a case with a model, as `brats eval` does.

    The model runs for those cases alone that are not in the store, and they are then put there.

    Args:
        models: The run's models, with the rules that the evaluation took.
        slice_rows: As of `MaskRules`.
        scored: Where and how the evaluation computed.
        store: What it has stored.
    """

    def predict(cache: Cache, index: int, labels: np.ndarray | None) -> Predicted:
        ensemble = models.for_case(cache, index)
        rules = MaskRules.of(ensemble.spec, slice_rows)
        here = replace(scored, device=ensemble.device.type, amp=ensemble.amp)
        by_eval, by_report = (key_of(cache, index, ensemble, rules, one) for one in (scored, here))
        content = store.find(cache, index, by_eval, by_report)
        if content is None:
            probabilities = predict_probabilities(cache, index, ensemble, rules, here)
            masks = make_masks(cache, index, rules, probabilities, labels)
            store.put(cache, index, by_report, encode_masks(masks))
        else:
            masks = decode_masks(content, cache, index, rules)
        return Predicted(masks=masks.volumes, tables=masks.tables)

    return predict


def files_predictor(folder: Path, regions: tuple[str, ...]) -> Predict:
    """Makes a function that reads the mask of a case, as `brats eval --predictions` does.

    Args:
        folder: Holds `<case>.nii.gz` or `<case>.nii`.
        regions: The K regions to tell.
    """

    def predict(cache: Cache, index: int, labels: np.ndarray | None) -> Predicted:
        case = cache.case_id(index)
        candidates = [mask_path(folder, case, suffix) for suffix in (".nii.gz", ".nii")]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            raise BratsError(f"{case}: {candidates[0]} was scored and is gone. Put it back.")
        labels = read_mask(path, case, cache.grid(index), cache.scheme(index))
        masks = np.array([region_table(region)[labels] for region in regions])
        return Predicted(masks=masks, tables={})

    return predict


def select_slices(
    cache: Cache,
    index: int,
    predicted: Predicted,
    labels: np.ndarray | None,
    regions: tuple[str, ...],
    limit: int | None,
) -> CaseSlices:
    """Selects slices of a case, those that show its true and predicted masks or all.

    Args:
        cache: Holds the case.
        index: Number of the case in the cache.
        predicted: Its prediction.
        labels: Its truth, as `brats_cache.format.truth.true_labels` returns it; None without one.
        regions: The K regions of `predicted`.
        limit: The most slices to select, through the tumour; None selects all that are cached.

    Raises:
        BratsError: No slice of the case is cached.
    """
    rows, z_indices = _rows(cache, index)
    if not len(rows):
        raise BratsError(f"{cache.case_id(index)}: {cache.path} holds no slice of it.")
    truth = None if labels is None else _truth(cache, index, labels, regions)
    found = predicted.masks[:, z_indices]
    true = np.zeros_like(found) if truth is None else truth[:, z_indices]
    counts = (found | true).any(axis=0).sum(axis=(1, 2))
    main = (true if true.any() else found)[0].sum(axis=(1, 2))
    chosen = z_indices
    if limit is not None:
        chosen = choose_slices(z_indices, counts, int(z_indices[main.argmax()]), limit)
    grid = cache.grid(index)
    _, height, width = grid.canonical_shape
    _, dy, dx = grid.spacing_mm
    prepared = np.array(cache.images[rows[np.isin(z_indices, chosen)]])
    images, brain = on_scan_grid(prepared, height, width, cache.preparation.fit)
    grey = to_grey(images, brain)
    prediction = predicted.masks[:, chosen].swapaxes(0, 1)
    shown = None if truth is None else truth[:, chosen].swapaxes(0, 1)
    tumour = prediction if shown is None or not shown.any() else shown
    whole = CaseSlices(
        case=cache.case_id(index),
        modalities=tuple(cache.preparation.modalities),
        z_indices=chosen,
        depth=cache.depth(index),
        is_whole=len(chosen) == len(z_indices),
        images=grey,
        windows=_windows(grey, brain, np.asarray(tumour.any(axis=1))),
        regions=regions,
        prediction=prediction,
        truth=shown,
        known=tuple(r for r in regions if truth is not None and r in cache.scheme(index).regions),
        pixel_mm=(dy, dx),
    )
    return whole.crop()


def _windows(grey: np.ndarray, brain: np.ndarray, tumour: np.ndarray) -> np.ndarray:
    """(C, 2) float windows of (n, C, Y, X) grey values, of two (n, Y, X) bool masks."""
    beside = without_tumour(brain, tumour)
    channels = grey.swapaxes(0, 1)
    return np.array([choose_window(channel[brain], channel[beside]) for channel in channels])


def _truth(cache: Cache, index: int, labels: np.ndarray, regions: tuple[str, ...]) -> np.ndarray:
    """(K, Z, Y, X) bool, all False for a region that the case's labels do not define."""
    known = cache.scheme(index).regions
    return np.array([region_table(region)[labels] & (region in known) for region in regions])


def _rows(cache: Cache, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a case in the cache file, and the z of each."""
    span = cache.row_slice(index)
    rows = np.arange(span.start, span.stop)
    return rows, cache.slices["z"][rows]
