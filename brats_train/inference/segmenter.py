"""The Python API of prediction: a trained model that segments cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from brats_cache.common.errors import BratsError, DataFaults
from brats_cache.discovery.cases import Case
from brats_cache.imaging.labels import SCHEMES, Scheme
from brats_cache.imaging.orientation import Orientation
from brats_train.inference.case_prediction import (
    PreparedCase,
    predict_case,
    prepare_arrays,
    prepare_case,
)
from brats_train.inference.case_sources import case_of_files, find_scans, output_scheme
from brats_train.inference.ensemble import Ensemble, load_ensemble
from brats_train.inference.expected_dice import expected_dice
from brats_train.inference.postprocess import mask_warnings, regions_of, source_labels
from brats_train.models.checkpoint import SegmenterSpec

__all__ = ["Segmentation", "Segmenter", "load_model"]

# Of the files of BraTS: axes to left, posterior and superior, 1 mm.
BRATS_AFFINE = np.array(
    [[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 239.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
NO_AFFINE = (
    "no affine was given, so axes to left, posterior and superior of 1 mm are taken, as BraTS has "
    "them; if that is wrong, so is the mask"
)
Source = str | Path | Mapping[str, str | Path | np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """What a model predicts for one case, on the scan's own grid.

    Attributes:
        labels: (X, Y, Z) uint8, in the axis order of the scan's file.
        affine: (4, 4) float64, voxel to RAS mm, the scan's own.
        scheme: What the values of `labels` mean; of a model of the whole tumour alone they are 1.
        probabilities: (X, Y, Z) float32 by region, 0 outside the brain; empty unless asked for.
        label_probabilities: Of the labels of the case, such as its grade; empty for a model that
            tells none.
        expected_dice: By region, the Dice that its mask can be expected to have, 0 to 1; see
            docs/expected-dice.md.
        warnings: How the scans differ from those that models, or this one, are trained on, such as
            "not skull-stripped", or that the mask is empty: it may be useless.
    """

    labels: np.ndarray
    affine: np.ndarray
    scheme: Scheme
    probabilities: Mapping[str, np.ndarray]
    label_probabilities: Mapping[str, float]
    expected_dice: Mapping[str, float]
    warnings: tuple[str, ...]


class Segmenter:
    """A trained model, or several whose probabilities are averaged. Made by `load_model`."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that the model predicts, of "wt", "tc" and "et"."""
        return self.ensemble.spec.regions

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the model takes, of "t1", "t1ce", "t2" and "flair"."""
        return self.ensemble.spec.preparation.modalities

    def predict(
        self,
        case: Source,
        *,
        affine: np.ndarray | None = None,
        tta: bool | None = None,
        threshold: float | None = None,
        probabilities: bool = False,
    ) -> Segmentation:
        """Segments one case, as `brats predict` does.

        Args:
            case: A case folder in any naming that `build-cache` understands; or for each
                modality a file or a volume (X, Y, Z), skull-stripped and with 0 outside the brain.
            affine: (4, 4) voxel to RAS mm, for volumes alone; without it theirs is taken to be that
                of BraTS, with a warning in the result.
            tta: Average over flips; None for what was chosen in training.
            threshold: Probability from which a voxel belongs to a region, 0 to 1; None for what was
                chosen in training.
            probabilities: Return those too.

        Raises:
            DataFaults: Files cannot be read or do not fit together.
            BratsError: The folder does not hold exactly one case, or a modality is missing that the
                model was not trained to do without.
            ValueError: Volumes cannot be used as they are.
        """
        prepared, scheme = self._prepare(case, affine)
        ensemble = self.ensemble.overruled(tta, threshold)
        spec = ensemble.spec
        prediction = predict_case(prepared, ensemble, spec.postprocessing.tta)
        depth, height, width = prepared.grid.canonical_shape
        masks = regions_of(
            prediction.probabilities,
            spec.regions,
            prediction.z_indices,
            depth,
            spec.postprocessing,
        )
        expected = expected_dice(
            prediction.probabilities, masks[:, prediction.z_indices], prediction.agreement
        )
        orientation = Orientation.of(prepared.grid.affine)
        volumes: dict[str, np.ndarray] = {}
        for channel, region in enumerate(spec.regions if probabilities else ()):
            volume = np.zeros((depth, height, width), np.float32)
            volume[prediction.z_indices] = prediction.probabilities[:, channel]
            volumes[region] = orientation.to_source(volume)
        return Segmentation(
            labels=orientation.to_source(source_labels(masks, spec.regions, scheme)),
            affine=prepared.grid.affine,
            scheme=scheme,
            probabilities=volumes,
            label_probabilities=dict(zip(spec.labels, prediction.labels.tolist(), strict=True)),
            expected_dice=dict(zip(spec.regions, expected.tolist(), strict=True)),
            warnings=(*prepared.all_warnings, *mask_warnings(masks)),
        )

    def _prepare(self, case: Source, affine: np.ndarray | None) -> tuple[PreparedCase, Scheme]:
        spec = self.ensemble.spec
        if isinstance(case, Mapping):
            volumes = {name: one for name, one in case.items() if isinstance(one, np.ndarray)}
            if volumes:
                return self._prepare_volumes(case, volumes, affine)
        if affine is not None:
            raise ValueError("affine is for volumes; files have their own")
        if isinstance(case, Mapping):
            files = {name: Path(str(file)) for name, file in case.items()}
            found = case_of_files(files, spec)
        else:
            found = _only_case(Path(case), spec)
        return prepare_case(found, spec), output_scheme(found, spec.label_scheme)[0]

    def _prepare_volumes(
        self,
        case: Mapping[str, object],
        volumes: Mapping[str, np.ndarray],
        affine: np.ndarray | None,
    ) -> tuple[PreparedCase, Scheme]:
        if len(volumes) < len(case):
            raise ValueError(
                "expected a file of each modality or a volume of each, not some of both"
            )
        spec = self.ensemble.spec
        prepared = prepare_arrays(volumes, BRATS_AFFINE.copy() if affine is None else affine, spec)
        if affine is None:
            prepared = replace(prepared, warnings=(NO_AFFINE, *prepared.warnings))
        return prepared, SCHEMES[spec.label_scheme]


def load_model(
    source: str | Path | Sequence[str | Path], *, checkpoint: str = "best", device: str = "auto"
) -> Segmenter:
    """Loads a trained model.

    Args:
        source: A run directory, a checkpoint file, a folder or an ONNX file of `brats export`, or
            hf://owner/name; of several, as of the folds of a cross-validated run, the
            probabilities are averaged.
        checkpoint: "best" or "last" of a run directory.
        device: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        RunNotFoundError: A directory holds no model.
        CheckpointError: A file is no model, or two of them do not fit together.

    Example::

        import nibabel as nib
        import brats_train

        model = brats_train.load_model("runs/latest")
        result = model.predict("path/to/case")
        nib.save(nib.Nifti1Image(result.labels, result.affine), "mask.nii.gz")
    """
    sources = [source] if isinstance(source, str | Path) else source
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Segmenter(load_ensemble(sources, torch.device(device), checkpoint=checkpoint))


def _only_case(folder: Path, spec: SegmenterSpec) -> Case:
    findings = find_scans([folder], spec)
    if findings.faults:
        raise DataFaults(findings.faults)
    if len(findings.cases) != 1:
        raise BratsError(
            f"{folder}: holds {len(findings.cases)} cases; expected one. Name the folder of a case."
        )
    return findings.cases[0]
