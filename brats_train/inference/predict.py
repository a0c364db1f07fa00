"""Predicting cases: scans read, prepared as the cache was, segmented, masks written on their grid.

While the model is at one case, threads read the next ones and another writes the last one. Under
torchrun the ranks share the cases out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.files import write_atomically
from brats_cache.discovery.cases import Case, Findings
from brats_cache.imaging.nifti_header import Header, read_header
from brats_cache.imaging.nifti_writer import encode_volume
from brats_train.inference.case_prediction import (
    CasePrediction,
    PreparedCase,
    predict_case,
    prepare_case,
)
from brats_train.inference.case_sources import output_scheme
from brats_train.inference.ensemble import Ensemble
from brats_train.inference.postprocess import regions_of, source_labels
from brats_train.inference.targets import (
    Target,
    description_of,
    fingerprint_of_model,
    is_complete,
    plan_targets,
)
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.runtime.distributed import World, same_error_on_all_ranks

__all__ = ["Outcome", "PredictionJob", "predict"]

NUM_READERS = 2
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """What `brats predict` was asked to do.

    Attributes:
        findings: The cases, and the faults of those that cannot be used.
        out_dir: Folder for the masks.
        tta: Average over flips; None for what was chosen in training.
        probabilities: Write `<case>_prob.nii.gz` too.
        resume: Keep masks that exist, where this model made them of these scans.
        overwrite: Replace masks that exist.
    """

    findings: Findings
    out_dir: Path
    tta: bool | None = None
    probabilities: bool = False
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What `predict` did.

    Attributes:
        written: Masks that were made, sorted.
        kept: Masks that were there, in order of their cases.
        notes: What a person should know of the scans.
    """

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    notes: tuple[str, ...]


def predict(job: PredictionJob, ensemble: Ensemble, world: World, progress: Progress) -> Outcome:
    """Writes `<case>.nii.gz` for every case that was found; ranks share the cases out.

    A case that cannot be read does not stop the others.

    Args:
        job: The cases and what to make of them.
        ensemble: The model.
        world: This process among its peers.
        progress: Called with the number of cases done and of all.

    Raises:
        BratsError: Before any work: two files would have one name, or a mask exists already and
            the job says neither to resume nor to overwrite, or it cannot be kept.
        DataFaults: At the end: all cases that could not be used.
    """
    modalities = ensemble.spec.preparation.modalities
    tta = ensemble.spec.tta if job.tta is None else job.tta
    model = fingerprint_of_model(ensemble, tta)
    with same_error_on_all_ranks():
        targets, faults = plan_targets(job.findings.cases, job.out_dir, job.probabilities)
    faults = [*job.findings.faults, *faults]
    kept = _kept(job, targets, model, world)
    try:
        job.out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BratsError(f"{job.out_dir}: cannot be made ({error.strerror}).") from error
    wanted = [target for target in targets if target.mask not in kept]
    written: list[Path] = []
    mine = wanted[world.rank :: world.size]
    for done, (path, case_faults) in enumerate(_segment_all(mine, ensemble, tta, model), start=1):
        written += [] if case_faults else [path]
        faults += case_faults
        progress(done, len(mine))
    parts = world.all_gather((written, faults))
    written = sorted(path for part, _ in parts for path in part)
    faults = list(dict.fromkeys(fault for _, part in parts for fault in part))
    if faults:
        faults = [_advise(fault, modalities) for fault in faults]
        failure = DataFaults(faults, f"{len(written) + len(kept)} masks are in {job.out_dir}.")
        failure.is_shared = True
        raise failure
    return Outcome(written=tuple(written), kept=tuple(kept), notes=job.findings.notes)


def _advise(fault: Fault, modalities: Sequence[str]) -> Fault:
    """`fault` without advice that only helps who builds a cache, an option of build-cache."""
    if "--" not in fault.remedy:
        return fault
    return replace(fault, remedy=f"The model was trained on {', '.join(modalities)}.")


def _kept(job: PredictionJob, targets: Sequence[Target], model: str, world: World) -> list[Path]:
    """The masks that stay, the same on every rank; each rank looks at its share of the files."""
    with same_error_on_all_ranks():
        found = [path for target in targets for path in target.files if path.exists()]
        if found and not job.overwrite and not job.resume:
            num_cases = sum(any(path.exists() for path in target.files) for target in targets)
            raise BratsError(
                f"{found[0]}: exists already, as do files of {num_cases} of {len(targets)} cases. "
                "Choose another --out, go on with --resume, or replace them with --overwrite."
            )
    if not job.resume:
        world.broadcast(None)  # a barrier: no rank writes before all have looked
        return []
    whole: list[Path] = []
    refusal = ""
    for target in targets[world.rank :: world.size]:
        try:
            whole += [target.mask] if is_complete(target, model) else []
        except BratsError as error:
            refusal = str(error)
            break
    parts = world.all_gather((whole, refusal))
    with same_error_on_all_ranks():
        for _, refusal in parts:
            if refusal:
                raise BratsError(refusal)
    complete = {path for part, _ in parts for path in part}
    return [target.mask for target in targets if target.mask in complete]


def _segment_all(
    targets: Sequence[Target], ensemble: Ensemble, tta: bool, model: str
) -> Iterator[tuple[Path, list[Fault]]]:
    """Yields each mask and the faults of its case, in order; a case with faults has no mask.

    What is in memory is bounded: `NUM_READERS` cases wait for the model, one for the disk.
    """
    spec = ensemble.spec
    with ThreadPoolExecutor(NUM_READERS) as readers, ThreadPoolExecutor(1) as writer:
        waiting = iter(targets)
        reading: deque[tuple[Target, Future[tuple[PreparedCase, Header]]]] = deque()
        writing: tuple[Target, Future[None]] | None = None
        try:
            while True:
                while len(reading) < NUM_READERS and (target := next(waiting, None)) is not None:
                    read = readers.submit(_read, target.case, spec)
                    reading.append((target, read))
                if not reading:
                    break
                target, read = reading.popleft()
                try:
                    prepared, header = read.result()
                except DataFaults as error:
                    yield target.mask, list(error.faults)
                    continue
                prediction = predict_case(prepared, ensemble, tta)
                description = description_of(model, prepared.fingerprint)
                if writing is not None:
                    yield _finished(*writing)
                write = writer.submit(_write, target, header, prediction, spec, description)
                writing = (target, write)
            if writing is not None:
                yield _finished(*writing)
        finally:  # an interrupted run does not read on; what is being written is finished
            readers.shutdown(wait=False, cancel_futures=True)


def _finished(target: Target, write: Future[None]) -> tuple[Path, list[Fault]]:
    write.result()
    return target.mask, []


def _read(case: Case, spec: SegmenterSpec) -> tuple[PreparedCase, Header]:
    """The prepared case, and the header on whose grid its mask is written."""
    prepared = prepare_case(case, spec.preparation)
    return prepared, read_header(next(iter(case.images.values())).path)


def _write(
    target: Target,
    header: Header,
    prediction: CasePrediction,
    spec: SegmenterSpec,
    description: str,
) -> None:
    """Writes the files of a case, the mask last. Slices without brain are background."""
    depth, height, width = header.canonical_shape
    if target.probabilities is not None:
        volume = np.zeros((len(spec.regions), depth, height, width), np.float32)
        volume[:, prediction.z_indices] = prediction.probabilities.swapaxes(0, 1)
        whole = volume[0] if len(volume) == 1 else volume
        write_atomically(target.probabilities, encode_volume(whole, header, description))
    masks = regions_of(
        prediction.probabilities,
        spec.regions,
        prediction.z_indices,
        depth,
        threshold=spec.threshold,
        min_component_voxels=spec.min_component_voxels,
    )
    mask = source_labels(masks, spec.regions, output_scheme(target.case, spec.label_scheme))
    write_atomically(target.mask, encode_volume(mask, header, description))
