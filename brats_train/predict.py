"""NIfTI in, NIfTI out: each case prepared as the cache was, segmented, written on its own grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brats_cache.cases import Case, find_cases
from brats_cache.errors import BratsError, DataFaults
from brats_cache.files import write_atomically
from brats_cache.labels import SCHEMES, Scheme, detect_scheme, source_table
from brats_cache.nifti import encode_volume, read_header
from brats_cache.preprocess import prepare_images
from brats_cache.survey import load_case

from .inference import Ensemble, label_volume, to_native

__all__ = ["PredictionJob", "predict"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """What `brats predict` was asked to do."""

    data: tuple[Path, ...]
    out_dir: Path
    tta: bool = False
    overwrite: bool = False


def predict(job: PredictionJob, ensemble: Ensemble, progress: Progress) -> list[Path]:
    """Writes `<case>.nii.gz` for every case under `job.data`; returns the files.

    A case that cannot be read does not stop the others: `DataFaults` with all of them is raised at
    the end. Raises `BratsError` before any work where a mask exists already.
    """
    preparation = ensemble.segmenter.preparation
    findings = find_cases(job.data, preparation.modalities)
    faults = list(findings.faults)
    targets = {case.id: job.out_dir / f"{case.id}.nii.gz" for case in findings.cases}
    existing = [path for path in targets.values() if path.exists()]
    if existing and not job.overwrite:
        raise BratsError(
            f"{existing[0]}: exists already ({len(existing)} of {len(targets)} masks do). Choose "
            "another --out, or replace them with --overwrite."
        )
    try:
        job.out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BratsError(f"{job.out_dir}: cannot be made ({error.strerror}).") from error
    written: list[Path] = []
    for done, case in enumerate(findings.cases, start=1):
        try:
            write_atomically(targets[case.id], _segment(case, ensemble, job.tta))
            written.append(targets[case.id])
        except DataFaults as error:
            faults += error.faults
        progress(done, len(findings.cases))
    if faults:
        raise DataFaults(faults, f"{len(written)} other cases are segmented in {job.out_dir}.")
    return written


def _segment(case: Case, ensemble: Ensemble, tta: bool) -> bytes:
    """The mask of one case as the bytes of a `.nii.gz`. Slices without brain are background."""
    segmenter = ensemble.segmenter
    loaded = load_case(replace(case, mask=None), segmenter.preparation)
    rows = np.flatnonzero(loaded.survey.brain_pixels)
    images = prepare_images(
        loaded.volumes,
        loaded.brain,
        loaded.survey.normalizations,
        segmenter.preparation,
        rows,
    )
    depth, height, width = loaded.brain.shape
    probabilities = ensemble.probabilities(images, tta)
    on_grid = to_native(probabilities, height, width, segmenter.preparation.fit)
    is_in_region = np.zeros((len(segmenter.regions), depth, height, width), bool)
    is_in_region[:, rows] = (on_grid >= segmenter.threshold).cpu().numpy().swapaxes(0, 1)
    if segmenter.regions == ("wt",):
        mask = is_in_region[0].astype(np.uint8)
    else:
        scheme = _scheme_of(case, segmenter.label_scheme)
        mask = source_table(scheme)[label_volume(is_in_region, segmenter.regions)]
    return encode_volume(mask, read_header(next(iter(case.images.values())).path))


def _scheme_of(case: Case, fallback: str) -> Scheme:
    """The scheme that the case's names tell, else the one of the training masks."""
    if case.naming == "plain":
        return SCHEMES[fallback]
    return detect_scheme(case.naming, {case.id: frozenset()}, dataset_labels=case.labels)
