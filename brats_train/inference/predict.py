"""Predicting cases: scans read, prepared as the cache was, segmented, masks written on their grid.

While the model is at one case, threads read the next ones and another writes the last one. Under
torchrun the ranks share the cases out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.files import write_atomically
from brats_cache.common.text import count_by_kind
from brats_cache.discovery.cases import Case, Findings
from brats_cache.imaging.nifti_header import Header, read_header
from brats_cache.imaging.nifti_writer import encode_volume
from brats_cache.imaging.scan_check import (
    FLAT,
    IDENTICAL,
    NOT_ALIGNED,
    NOT_STRIPPED,
    OTHER_SPACING,
    PREPARING_TOOLS,
)
from brats_train.inference.case_details import encode_details
from brats_train.inference.case_prediction import (
    CasePrediction,
    PreparedCase,
    predict_case,
    prepare_case,
)
from brats_train.inference.case_sources import output_scheme
from brats_train.inference.ensemble import Ensemble
from brats_train.inference.expected_dice import expected_dice
from brats_train.inference.mask_files import refuse_existing
from brats_train.inference.output_files import (
    OutputFiles,
    description_of,
    fingerprint_of_model,
    is_complete,
    plan_outputs,
    remove_outdated,
)
from brats_train.inference.postprocess import entropy, mask_warnings, regions_of, source_labels
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.runtime.distributed import World

__all__ = ["Outcome", "PredictionJob", "predict"]

NUM_READERS = 2
SCAN_WARNINGS = (NOT_STRIPPED, OTHER_SPACING, FLAT, IDENTICAL, NOT_ALIGNED)
Progress = Callable[[float, int], None]
Warn = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """What `brats predict` was asked to do.

    Attributes:
        findings: The cases, and the faults of those that cannot be used.
        out_dir: Folder for the masks.
        probabilities: Write `<case>_prob.nii.gz` too.
        uncertainty: Write `<case>_uncertainty.nii.gz` too.
        resume: Keep masks that exist, where this model made them of these scans.
        overwrite: Replace masks that exist; with `resume`, those alone that cannot be kept.
    """

    findings: Findings
    out_dir: Path
    probabilities: bool = False
    uncertainty: bool = False
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What `predict` did.

    Attributes:
        written: Masks that were made, sorted.
        kept: Masks that were there, in order of their cases.
        expected_dice: By case and region, of the masks that were made, in order of the cases.
    """

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    expected_dice: Mapping[tuple[str, str], float]


@dataclass(frozen=True, kw_only=True)
class _Result:
    """What became of one case: a case with faults has no mask."""

    output: OutputFiles
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = ()
    expected_dice: Mapping[str, float] = field(default_factory=dict)


class _Written(NamedTuple):
    """What is told of a mask: the expected Dice by region, and warnings."""

    expected_dice: dict[str, float]
    warnings: tuple[str, ...]


def predict(
    job: PredictionJob,
    ensemble: Ensemble,
    world: World,
    progress: Progress,
    warn: Warn = lambda text: None,
    alert: Warn = lambda text: None,
) -> Outcome:
    """Writes `<case>.nii.gz` for every case that was found; ranks share the cases out.

    A case that cannot be read does not stop the others.

    Args:
        job: The cases and what to make of them.
        ensemble: The model.
        world: This process among its peers.
        progress: Called with the number of cases done, and of those that the model has done, parts
            of one included; and with the number of all.
        warn: Takes a line for each kind of scan that the model may not understand, on every rank.
        alert: Takes a line for each case that looks unlike the training scans, before it is
            segmented, on the rank that does.

    Raises:
        BratsError: Before any work: two files would have one name, or a mask exists already and
            the job says neither to resume nor to overwrite, or it cannot be kept.
        DataFaults: At the end: all cases that could not be used.
    """
    modalities = ensemble.spec.preparation.modalities
    model = fingerprint_of_model(ensemble)
    with world.errors_told_once():
        outputs, faults = plan_outputs(
            job.findings.cases,
            job.out_dir,
            with_probabilities=job.probabilities,
            with_uncertainty=job.uncertainty,
            overwrite=job.overwrite,
        )
    faults = [*job.findings.faults, *faults]
    kept = _kept(job, outputs, model, ensemble.spec, world)
    try:
        job.out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BratsError(f"{job.out_dir}: cannot be made ({error.strerror}).") from error
    wanted = [output for output in outputs if output.mask not in kept]
    mine = wanted[world.rank :: world.size]
    results: list[_Result] = []
    progress(0, len(mine))
    for result in _segment_all(
        mine, ensemble, model, alert, lambda done: progress(done, len(mine))
    ):
        results.append(result)
        progress(len(results), len(mine))
    results = [result for part in world.all_gather(results) for result in part]
    written = sorted(result.output.mask for result in results if not result.faults)
    for line in _warnings_by_kind(results):
        warn(line)
    faults = list(dict.fromkeys([*faults, *(fault for one in results for fault in one.faults)]))
    if faults:
        faults = [_advise(fault, modalities) for fault in faults]
        failure = DataFaults(faults, f"{len(written) + len(kept)} masks are in {job.out_dir}.")
        failure.is_shared = True
        raise failure
    results.sort(key=lambda result: result.output.case.id)
    expected = {
        (result.output.case.id, region): value
        for result in results
        for region, value in result.expected_dice.items()
    }
    return Outcome(written=tuple(written), kept=tuple(kept), expected_dice=expected)


def _warnings_by_kind(results: Sequence[_Result]) -> list[str]:
    """One line for each kind of warning, with a count and a few cases, and what can be done."""
    lines = count_by_kind(
        [(result.output.case.id, result.warnings) for result in results], len(results)
    )
    if any(kind in SCAN_WARNINGS for result in results for kind in result.warnings):
        lines.append(
            f"The masks of such scans may be useless. Prepare them with {PREPARING_TOOLS}."
        )
    return lines


def _advise(fault: Fault, modalities: Sequence[str]) -> Fault:
    """`fault` with advice for a prediction in place of options of build-cache."""
    repair, option, _ = fault.remedy.partition(", or leave the case out")
    if option:
        return replace(fault, remedy=f"{repair}.")
    if "--modalities" in fault.remedy:
        return replace(fault, remedy=f"The model was trained on {', '.join(modalities)}.")
    if "--fit" in fault.remedy:
        return replace(fault, remedy=f"The model's cache decides that. For another: {fault.remedy}")
    return fault


def _kept(
    job: PredictionJob,
    outputs: Sequence[OutputFiles],
    model: str,
    spec: SegmenterSpec,
    world: World,
) -> list[Path]:
    """The masks that stay, the same on every rank; each rank looks at its share of the files."""
    with world.errors_told_once():  # no rank writes before all have looked
        if not job.overwrite and not job.resume:
            refuse_existing([output.files for output in outputs])
    if not job.resume:
        return []
    whole: list[Path] = []
    refusal = ""
    for output in outputs[world.rank :: world.size]:
        try:
            whole += [output.mask] if is_complete(output, model, _scheme(output, spec)) else []
        except BratsError as error:
            if not job.overwrite:
                refusal = str(error)
                break
    parts = world.all_gather((whole, refusal))
    with world.errors_told_once():
        for _, refusal in parts:
            if refusal:
                raise BratsError(refusal)
    complete = {path for part, _ in parts for path in part}
    return [output.mask for output in outputs if output.mask in complete]


def _segment_all(
    outputs: Sequence[OutputFiles],
    ensemble: Ensemble,
    model: str,
    alert: Warn,
    progress: Callable[[float], None],
) -> Iterator[_Result]:
    """Yields what became of each case, in order; `progress` takes how many the model has done.

    What is in memory is bounded: `NUM_READERS` cases wait for the model, one for the disk.
    """
    spec = ensemble.spec
    with ThreadPoolExecutor(NUM_READERS) as readers, ThreadPoolExecutor(1) as writer:
        waiting = iter(outputs)
        reading: deque[tuple[OutputFiles, Future[tuple[PreparedCase, Header]]]] = deque()
        writing: tuple[_Result, Future[_Written]] | None = None
        num_done = 0

        def part(share: float) -> None:
            progress(num_done + share)

        try:
            while True:
                while len(reading) < NUM_READERS and (output := next(waiting, None)) is not None:
                    read = readers.submit(_read, output.case, spec)
                    reading.append((output, read))
                if not reading:
                    break
                output, read = reading.popleft()
                try:
                    prepared, header = read.result()
                except DataFaults as error:
                    yield _Result(output=output, faults=error.faults)
                    num_done += 1
                    continue
                if prepared.unfamiliar:
                    alert(f"{output.case.id}: {prepared.unfamiliar}")
                prediction = predict_case(prepared, ensemble, spec.postprocessing.tta, part)
                num_done += 1
                description = description_of(model, prepared.fingerprint, _scheme(output, spec))
                if writing is not None:
                    yield _finished(*writing)
                write = writer.submit(
                    _write, output, header, prediction, prepared.all_warnings, spec, description
                )
                writing = (_Result(output=output, warnings=prepared.warnings), write)
            if writing is not None:
                yield _finished(*writing)
        finally:  # an interrupted run does not read on; what is being written is finished
            readers.shutdown(wait=False, cancel_futures=True)


def _finished(result: _Result, write: Future[_Written]) -> _Result:
    expected_dice, warnings = write.result()
    return replace(result, expected_dice=expected_dice, warnings=(*result.warnings, *warnings))


def _read(case: Case, spec: SegmenterSpec) -> tuple[PreparedCase, Header]:
    """The prepared case, and the header on whose grid its mask is written."""
    prepared = prepare_case(case, spec)
    header = read_header(next(iter(case.images.values())).path)
    return replace(prepared, warnings=(*prepared.warnings, *header.doubts)), header


def _write(
    output: OutputFiles,
    header: Header,
    prediction: CasePrediction,
    scan_warnings: Sequence[str],
    spec: SegmenterSpec,
    description: str,
) -> _Written:
    """Writes the files of a case, the mask last. Slices without brain are background."""
    remove_outdated(output, description)
    if output.probabilities is not None:
        whole = _whole_volume(prediction.probabilities, prediction.z_indices, header)
        write_atomically(output.probabilities, encode_volume(whole, header, description))
    if output.uncertainty is not None:
        doubt = _whole_volume(entropy(prediction.probabilities), prediction.z_indices, header)
        write_atomically(output.uncertainty, encode_volume(doubt, header, description))
    masks = regions_of(
        prediction.probabilities,
        spec.regions,
        prediction.z_indices,
        header.canonical_shape[0],
        spec.postprocessing,
    )
    expected = expected_dice(
        prediction.probabilities, masks[:, prediction.z_indices], prediction.agreement
    )
    scheme, scheme_doubt = output_scheme(output.case, spec.label_scheme)
    doubts = mask_warnings(masks)
    if scheme_doubt and _tells_tissues(spec):
        doubts = (*doubts, scheme_doubt)
    details = encode_details(
        output.case.id, prediction, expected, [*scan_warnings, *doubts], spec, description
    )
    write_atomically(output.details, details)
    mask = source_labels(masks, spec.regions, scheme)
    write_atomically(output.mask, encode_volume(mask, header, description))
    return _Written(
        expected_dice=dict(zip(spec.regions, expected.tolist(), strict=True)),
        warnings=doubts,
    )


def _scheme(output: OutputFiles, spec: SegmenterSpec) -> str:
    """The name of the label scheme of a case's mask, "" where it does not matter."""
    return output_scheme(output.case, spec.label_scheme)[0].name if _tells_tissues(spec) else ""


def _tells_tissues(spec: SegmenterSpec) -> bool:
    return len(spec.regions) > 1


def _whole_volume(values: np.ndarray, z_indices: np.ndarray, header: Header) -> np.ndarray:
    """Values (n, K, Y, X) of slices as a volume (Z, Y, X), or of several regions (K, Z, Y, X)."""
    volume = np.zeros((values.shape[1], *header.canonical_shape), np.float32)
    volume[:, z_indices] = values.swapaxes(0, 1)
    return volume[0] if len(volume) == 1 else volume
