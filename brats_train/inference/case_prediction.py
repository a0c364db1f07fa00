"""Predicting one case: a scan or the rows of a cache, prepared and then put through the model.

`eval`, `predict`, `report`, the choice of post-processing and the Python API all use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from brats_cache.build.survey import load_case
from brats_cache.discovery.cases import Case
from brats_cache.format.reader import Cache
from brats_cache.imaging.grid import Grid
from brats_cache.imaging.orientation import Orientation
from brats_cache.imaging.preprocess import Normalization, brain_of, measure, prepare_images
from brats_cache.imaging.scan_check import check_scans
from brats_train.data.channels import place_channels
from brats_train.inference.brain import brain_of_images
from brats_train.inference.case_sources import fingerprint_of_scans
from brats_train.inference.ensemble import Ensemble, ShareDone, to_native
from brats_train.inference.expected_dice import agreement_of
from brats_train.inference.familiarity import compare_look
from brats_train.inference.pooling import pool_slices
from brats_train.inference.scan_look import look_of
from brats_train.models.checkpoint import SegmenterSpec

__all__ = [
    "CasePrediction",
    "PreparedCase",
    "predict_cached_case",
    "predict_case",
    "prepare_arrays",
    "prepare_case",
]


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedCase:
    """A case ready for the model: its slices that hold brain.

    Attributes:
        images: (n, C, S, S) float16.
        z_indices: (n,) z of each slice.
        brain: (n, Y, X) bool on the scan's own grid.
        grid: The scan's grid.
        fingerprint: Of the scans' files, see `fingerprint_of_scans`; "" for what is no file.
        warnings: How the scans differ from those that models are trained on, see `check_scans`.
        unfamiliar: How they differ from those that this model was trained on, see `compare_look`.
    """

    images: np.ndarray
    z_indices: np.ndarray
    brain: np.ndarray
    grid: Grid
    fingerprint: str = ""
    warnings: tuple[str, ...] = ()
    unfamiliar: str = ""

    @property
    def all_warnings(self) -> tuple[str, ...]:
        """`warnings`, and `unfamiliar` where there is something."""
        return (*self.warnings, *filter(None, [self.unfamiliar]))


@dataclass(frozen=True, kw_only=True, eq=False)
class CasePrediction:
    """The probabilities of one case.

    Attributes:
        probabilities: (n, K, Y, X) float32 on the scan's own grid, 0 outside the brain.
        z_indices: (n,) z of each slice.
        network_output: (n, K, S, S) float32 on the device, as the model gave it.
        labels: (L,) float64, the probability of each label of the case; L is 0 for a model that
            tells none.
        agreement: (K,) float64, how far the members of the model agree, see `agreement_of`.
    """

    probabilities: np.ndarray
    z_indices: np.ndarray
    network_output: Tensor
    labels: np.ndarray
    agreement: np.ndarray


def predict_case(
    prepared: PreparedCase,
    ensemble: Ensemble,
    tta: bool,
    progress: ShareDone = lambda share: None,
) -> CasePrediction:
    """Predicts a prepared case; `tta` averages over flips, `progress` see `Ensemble.predict`."""
    _, height, width = prepared.grid.canonical_shape
    output, slice_labels, overlaps = ensemble.predict(
        prepared.images, prepared.z_indices, tta, progress
    )
    probabilities = to_native(output, height, width, ensemble.spec.preparation.fit)
    probabilities *= prepared.brain[:, None]
    # What a slice counts for is the tumour that is seen in it.
    weights = probabilities.max(axis=1, initial=0.0).sum(axis=(1, 2), dtype=np.float64)
    return CasePrediction(
        probabilities=probabilities,
        z_indices=prepared.z_indices,
        network_output=output,
        labels=pool_slices(slice_labels.cpu().numpy(), weights),
        agreement=agreement_of(overlaps.cpu().numpy()),
    )


def predict_cached_case(
    cache: Cache,
    index: int,
    ensemble: Ensemble,
    tta: bool,
    *,
    without: Sequence[str] = (),
    progress: ShareDone = lambda share: None,
) -> CasePrediction:
    """Predicts the cached rows of case number `index`.

    The cache holds no brain masks, so the brain is told by the rows, see `brain_of_images`.

    Args:
        cache: The cache; it may lack modalities of a model that accepts that.
        index: Number of the case.
        ensemble: The model.
        tta: Average over flips.
        without: Modalities to leave out, as if the case lacked them.
        progress: See `Ensemble.predict`.
    """
    rows = cache.row_slice(index)
    images, grid = np.array(cache.images[rows]), cache.grid(index)
    _, height, width = grid.canonical_shape
    held, wanted = cache.preparation.modalities, ensemble.spec.preparation.modalities
    for channel, name in enumerate(held):
        if name in without:
            images[:, channel] = 0
    prepared = PreparedCase(
        images=place_channels(images, held, wanted),
        z_indices=cache.slices["z"][rows],
        brain=brain_of_images(images, height, width, cache.preparation.fit),
        grid=grid,
    )
    return predict_case(prepared, ensemble, tta, progress)


def prepare_case(case: Case, spec: SegmenterSpec) -> PreparedCase:
    """Reads a case and prepares its slices that hold brain, as the cache builder does.

    Args:
        case: The case, with some or all of the model's modalities; see `find_scans`.
        spec: The model.

    Raises:
        DataFaults: Its scans cannot be read or do not fit together.
    """
    modalities = tuple(case.images)
    preparation = replace(spec.preparation, modalities=modalities)
    loaded = load_case(replace(case, mask=None), preparation)
    survey = loaded.survey
    fingerprint = fingerprint_of_scans(case.images, [source.checksum for source in survey.sources])
    return _prepare(
        dict(zip(modalities, loaded.volumes, strict=True)),
        loaded.brain,
        survey.normalizations,
        Grid(shape=survey.shape, affine=survey.affine),
        spec,
        fingerprint,
    )


def prepare_arrays(
    volumes: Mapping[str, np.ndarray], affine: np.ndarray, spec: SegmenterSpec
) -> PreparedCase:
    """Prepares volumes in memory, as `prepare_case` does files.

    Args:
        volumes: (X, Y, Z) real numbers in the axis order of `affine`, by modality.
        affine: (4, 4), voxel to RAS mm.
        spec: The model; each of its modalities must be among the volumes, or some of them where it
            accepts that others are missing.

    Raises:
        ValueError: A volume is missing, not 3-D, not finite, of another shape than the others,
            without contrast, or larger than the model takes; or the affine is no grid.
    """
    named = _check_volumes(volumes, spec)
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise ValueError("the affine is no grid in space; expected (4, 4), voxel to RAS mm")
    orientation = Orientation.of(affine)
    canonical = {name: orientation.to_canonical(_as_read(volume)) for name, volume in named.items()}
    brain = brain_of(list(canonical.values()))
    size, most = max(brain.shape[1:]), spec.preparation.size
    if spec.preparation.fit == "pad" and size > most:
        raise ValueError(f"slices of {size} pixels; expected {most} at most, which the model takes")
    if not brain.any():
        raise ValueError("no voxel is other than 0 in any modality; expected a brain")
    normalizations = [
        measure(volume[brain], spec.preparation.normalize) for volume in canonical.values()
    ]
    grid = Grid(shape=next(iter(named.values())).shape, affine=affine)
    return _prepare(canonical, brain, normalizations, grid, spec)


def _check_volumes(volumes: Mapping[str, np.ndarray], spec: SegmenterSpec) -> dict[str, np.ndarray]:
    """The volumes that a model takes, in its order. Raises as `prepare_arrays`."""
    wanted = spec.preparation.modalities
    missing = [name for name in wanted if name not in volumes]
    if len(missing) == len(wanted) or (missing and not spec.accepts_missing):
        raise ValueError(
            f"no {', '.join(missing)} among {', '.join(volumes) or 'no volumes'}; the model was "
            f"trained on {', '.join(wanted)}"
        )
    named = {name: np.asarray(volumes[name]) for name in wanted if name in volumes}
    shape = next(iter(named.values())).shape
    for name, volume in named.items():
        if volume.ndim != 3 or volume.shape != shape or volume.dtype.kind not in "iufb":
            raise ValueError(
                f"{name} is {volume.dtype} of shape {volume.shape}; expected real numbers of one "
                f"shape (X, Y, Z), here {shape}"
            )
        if not np.isfinite(volume).all():
            raise ValueError(f"{name} holds NaN or infinity")
    return named


def _prepare(
    volumes: Mapping[str, np.ndarray],
    brain: np.ndarray,
    normalizations: Sequence[Normalization],
    grid: Grid,
    spec: SegmenterSpec,
    fingerprint: str = "",
) -> PreparedCase:
    """Prepares the slices that hold brain, and compares the scan with the training scans.

    Args:
        volumes: By modality, canonical (Z, Y, X).
        brain: (Z, Y, X) bool.
        normalizations: Of each volume.
        grid: The scan's grid.
        spec: The model.
        fingerprint: Of the scans' files.
    """
    wanted, held = spec.preparation.modalities, tuple(volumes)
    z_indices = np.flatnonzero(brain.any(axis=(1, 2)))
    preparation = replace(spec.preparation, modalities=held)
    images = prepare_images(list(volumes.values()), brain, normalizations, preparation, z_indices)
    compared = compare_look(
        look_of(images, z_indices, grid),
        spec.looks,
        wanted,
        held,
        check_scans(volumes, brain, grid.spacing_mm),
    )
    missing = [name for name in wanted if name not in held]
    return PreparedCase(
        images=place_channels(images, held, wanted),
        z_indices=z_indices,
        brain=brain[z_indices],
        grid=grid,
        fingerprint=fingerprint,
        warnings=(
            *compared.kinds,
            *(f"{name} is missing, predicted without it" for name in missing),
        ),
        unfamiliar=compared.line,
    )


def _as_read(volume: np.ndarray) -> np.ndarray:
    """The type that `nifti.read_volume` would give: small integers as they are, else float32."""
    is_small = volume.dtype.kind in "iub" and volume.dtype.itemsize <= 2
    return volume if is_small else volume.astype(np.float32)
