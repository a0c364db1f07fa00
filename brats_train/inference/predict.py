"""NIfTI in, NIfTI out: each case prepared as the cache was, segmented, written on its own grid.

While the model is at one case, a thread reads the next ones and another writes the last one. Under
torchrun the ranks share the cases out.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import xxhash

from brats_cache.build.survey import load_case
from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.files import write_atomically
from brats_cache.discovery.cases import Case, find_cases
from brats_cache.imaging.labels import SCHEMES, Scheme, detect_scheme
from brats_cache.imaging.nifti import Header, encode_volume, read_header
from brats_cache.imaging.preprocess import prepare_images
from brats_train.inference.ensemble import Ensemble, to_native
from brats_train.inference.postprocess import regions_of, source_labels
from brats_train.models.checkpoint import Segmenter
from brats_train.runtime.distributed import World, same_error_on_all_ranks

__all__ = ["Outcome", "PredictionJob", "predict"]

NUM_READERS = 2
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """What `brats predict` was asked to do.

    tta            None for what training chose
    probabilities  write `<case>_prob.nii.gz` too
    resume         leave masks that exist as they are
    """

    data: tuple[Path, ...]
    out_dir: Path
    tta: bool | None = None
    probabilities: bool = False
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Masks written and masks that were there, in order of the cases' ids; notes on the scans."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Target:
    """A case and the files to be made of it."""

    case: Case
    mask: Path
    probabilities: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.mask,) if self.probabilities is None else (self.probabilities, self.mask)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prepared:
    """A case ready for the model: (n, C, S, S) float16 `images` of the slices `places`."""

    images: np.ndarray
    places: np.ndarray
    header: Header


def predict(job: PredictionJob, ensemble: Ensemble, world: World, progress: Progress) -> Outcome:
    """Writes `<case>.nii.gz` for every case under `job.data`.

    A case that cannot be read does not stop the others: `DataFaults` with all of them is raised at
    the end. Raises `BratsError` before any work where a mask exists already and the job says
    neither to resume nor to overwrite, or where those to be kept were made otherwise.
    """
    modalities = ensemble.segmenter.preparation.modalities
    findings = find_cases(job.data, modalities)
    targets, faults = _targets(job, findings.cases)
    faults = [*findings.faults, *faults]
    tta = ensemble.segmenter.tta if job.tta is None else job.tta
    mark = _mark(ensemble, tta)
    with same_error_on_all_ranks():
        kept = _check_existing(job, targets, mark)
    world.broadcast(None)  # no rank writes before all have looked
    try:
        job.out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BratsError(f"{job.out_dir}: cannot be made ({error.strerror}).") from error
    wanted = [target for target in targets if target.mask not in kept]
    written: list[Path] = []
    mine = wanted[world.rank :: world.size]
    for done, (path, case_faults) in enumerate(_segment_all(mine, ensemble, tta, mark), start=1):
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
    return Outcome(written=tuple(written), kept=tuple(kept), notes=findings.notes)


def _targets(job: PredictionJob, cases: Sequence[Case]) -> tuple[list[_Target], list[Fault]]:
    targets: list[_Target] = []
    faults: list[Fault] = []
    for case in cases:
        mask = job.out_dir / f"{case.id}.nii.gz"
        if mask.parent != job.out_dir:  # an id is a file's name, but a dataset.json may say more
            fault = Fault(
                case=case.id,
                path=None,
                found="an id that is no file name",
                expected="a name without separators",
            )
            faults.append(fault)
            continue
        probabilities = job.out_dir / f"{case.id}_prob.nii.gz" if job.probabilities else None
        targets.append(_Target(case=case, mask=mask, probabilities=probabilities))
    return targets, faults


def _advise(fault: Fault, modalities: Sequence[str]) -> Fault:
    """`fault` without advice that only helps who builds a cache, an option of build-cache."""
    if "--" not in fault.remedy:
        return fault
    return replace(fault, remedy=f"The model was trained on {', '.join(modalities)}.")


def _mark(ensemble: Ensemble, tta: bool) -> str:
    """What a mask's header says of how it was made: equal for equal models and rules."""
    segmenter = ensemble.segmenter
    rule = (segmenter.threshold, tta, segmenter.min_component_voxels)
    text = repr((sorted(ensemble.fingerprints), rule))
    return f"brats {xxhash.xxh3_64_hexdigest(text.encode())}"


def _check_existing(job: PredictionJob, targets: Sequence[_Target], mark: str) -> list[Path]:
    """The masks that can stay. Files are written atomically, so one that exists is whole."""
    existing = [path for target in targets for path in target.files if path.exists()]
    if job.overwrite or not existing:
        return []
    if not job.resume:
        num_cases = sum(any(path.exists() for path in target.files) for target in targets)
        raise BratsError(
            f"{existing[0]}: exists already, as do files of {num_cases} of {len(targets)} cases. "
            "Choose another --out, go on with --resume, or replace them with --overwrite."
        )
    for path in existing:
        if _description(path) != mark:
            raise BratsError(
                f"{path}: was not made by this model with these options, so it cannot stay beside "
                "masks that are. Choose another --out, or replace it with --overwrite."
            )
    return [target.mask for target in targets if all(path.exists() for path in target.files)]


def _description(path: Path) -> str:
    try:
        block = read_header(path).block
    except DataFaults:
        return ""
    kind = nib.Nifti2Header if len(block) == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Header
    header = kind.from_fileobj(io.BytesIO(block), check=False)
    text: str = header["descrip"].item().decode("latin-1")
    return text


def _segment_all(
    targets: Sequence[_Target], ensemble: Ensemble, tta: bool, mark: str
) -> Iterator[tuple[Path, list[Fault]]]:
    """Yields each mask and the faults of its case, in order; a case with faults has no mask.

    What is in memory is bounded: `NUM_READERS` cases wait for the model, one for the disk.
    """
    segmenter = ensemble.segmenter
    with ThreadPoolExecutor(NUM_READERS) as readers, ThreadPoolExecutor(1) as writer:
        waiting = iter(targets)
        reading: deque[tuple[_Target, Future[_Prepared]]] = deque()
        writing: tuple[_Target, Future[None]] | None = None
        try:
            while True:
                while len(reading) < NUM_READERS and (target := next(waiting, None)) is not None:
                    read = readers.submit(_prepare, target.case, segmenter)
                    reading.append((target, read))
                if not reading:
                    break
                target, read = reading.popleft()
                try:
                    prepared = read.result()
                except DataFaults as error:
                    yield target.mask, list(error.faults)
                    continue
                _, height, width = prepared.header.canonical_shape
                probabilities = to_native(
                    ensemble.probabilities(prepared.images, tta),
                    height,
                    width,
                    segmenter.preparation.fit,
                )
                if writing is not None:
                    yield _finished(*writing)
                write = writer.submit(_write, target, prepared, probabilities, segmenter, mark)
                writing = (target, write)
            if writing is not None:
                yield _finished(*writing)
        finally:  # an interrupted run does not read on; what is being written is finished
            readers.shutdown(wait=False, cancel_futures=True)


def _finished(target: _Target, write: Future[None]) -> tuple[Path, list[Fault]]:
    write.result()
    return target.mask, []


def _prepare(case: Case, segmenter: Segmenter) -> _Prepared:
    """Reads a case and prepares its slices that hold brain, as the cache builder does."""
    preparation = segmenter.preparation
    loaded = load_case(replace(case, mask=None), preparation)
    places = np.flatnonzero(loaded.survey.brain_pixels)
    images = prepare_images(
        loaded.volumes, loaded.brain, loaded.survey.normalizations, preparation, places
    )
    header = read_header(next(iter(case.images.values())).path)
    return _Prepared(images=images, places=places, header=header)


def _write(
    target: _Target,
    prepared: _Prepared,
    probabilities: np.ndarray,
    segmenter: Segmenter,
    mark: str,
) -> None:
    """Writes the files of a case, the mask last. Slices without brain are background."""
    depth, height, width = prepared.header.canonical_shape
    if target.probabilities is not None:
        volume = np.zeros((len(segmenter.regions), depth, height, width), np.float32)
        volume[:, prepared.places] = probabilities.swapaxes(0, 1)
        whole = volume[0] if len(volume) == 1 else volume
        write_atomically(target.probabilities, encode_volume(whole, prepared.header, mark))
    masks = regions_of(
        probabilities,
        segmenter.regions,
        prepared.places,
        depth,
        threshold=segmenter.threshold,
        min_component_voxels=segmenter.min_component_voxels,
    )
    mask = source_labels(masks, segmenter.regions, _scheme_of(target.case, segmenter.label_scheme))
    write_atomically(target.mask, encode_volume(mask, prepared.header, mark))


def _scheme_of(case: Case, fallback: str) -> Scheme:
    """The scheme that the case's names tell, else the one of the training masks."""
    if case.naming == "plain":
        return SCHEMES[fallback]
    return detect_scheme(case.naming, {case.id: frozenset()}, dataset_labels=case.labels)
