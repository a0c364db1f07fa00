"""Scoring a run, or masks made elsewhere, on a split: by case on the scan's own grid, and by slice.

The model runs here, unless what it makes of a case is stored; what follows it runs in processes
beside it, and ranks share the cases out. No score depends on how many of either there are, nor on
what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.text import first_few
from brats_cache.format.reader import Cache
from brats_train.data.selection import Fold, case_splits
from brats_train.evaluation.case_masks import CaseProbabilities, MaskRules, slice_rows_of
from brats_train.evaluation.case_scores import CaseScores, ScoringTask
from brats_train.evaluation.classification import ClassifiedCase, summarise_classes
from brats_train.evaluation.mask_store import InferenceSettings, MaskStore, key_of
from brats_train.evaluation.metrics import EmptyRule
from brats_train.evaluation.scoring_pool import Progress, score_all
from brats_train.evaluation.summary import summarise
from brats_train.inference.case_models import CaseModels
from brats_train.inference.case_prediction import predict_cached_case
from brats_train.inference.ensemble import Ensemble, ShareDone
from brats_train.inference.mask_files import mask_path
from brats_train.models.postprocessing import Postprocessing
from brats_train.runtime.distributed import World

__all__ = [
    "SLICE_THRESHOLD",
    "Evaluation",
    "EvaluationJob",
    "evaluate",
    "evaluate_files",
    "predict_probabilities",
]

SLICE_THRESHOLD = 0.5  # the training loop's, so that slice_iou and val_iou are one figure
CaseOfCache = tuple[Cache, int]


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What `brats eval` was asked to do.

    Attributes:
        split: "train", "val" or "test".
        rows: Rule of the rows that the slice-wise score counts, as in the recipe.
        fold: As in training.
        empty: Row of `metrics.EMPTY_MASKS`.
        tta: Average over flips; None for what was chosen in training.
        threshold: 0 to 1; None for what was chosen in training, where the slice-wise score takes
            0.5 as the training loop does.
        without: Modalities to leave out.
        labels: The true label by case, of a model that tells labels apart.
    """

    split: str
    rows: str
    fold: Fold
    empty: EmptyRule
    tta: bool | None = None
    threshold: float | None = None
    without: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The scores of a split.

    Attributes:
        cases: All of its cases, in order of their ids.
        summary: What summary.json holds.
        num_stored: For how many cases no model had to run.
        unmasked: The cases of the split that are left out, because they have no mask.
        classified: The label of each case, as `cases`; none of a model that tells none.
    """

    cases: tuple[CaseScores, ...]
    summary: dict[str, Any]
    num_stored: int = 0
    unmasked: tuple[str, ...] = ()
    classified: tuple[ClassifiedCase, ...] = ()


def evaluate(
    job: EvaluationJob,
    caches: Sequence[Cache],
    models: CaseModels,
    world: World,
    progress: Progress,
    masks_to: Path | None = None,
    store: MaskStore | None = None,
) -> Evaluation:
    """Scores a run on every case of a split; ranks share the cases out.

    Args:
        job: What to score.
        caches: The caches that hold the split.
        models: The run's models; of a cross-validation each case is scored by the one that has
            not seen it.
        world: This process among its peers.
        progress: Called with the number of cases done, and of those that the model has done, parts
            of one included; and with the number of all.
        masks_to: An existing folder for the predicted masks, `<case>.nii.gz`.
        store: What the same models made of the same cases is taken from here, and what they make
            of others is put there.

    Returns:
        The result, on every rank.

    Raises:
        BratsError: The split has no cases, or none with a mask to be scored against.
    """
    models = models.overruled(job.tta, job.threshold)
    slice_threshold = SLICE_THRESHOLD if job.threshold is None else job.threshold
    settings = InferenceSettings(
        device=world.device.type,
        amp=models.whole.amp,
        slice_threshold=slice_threshold,
        without=job.without,
    )
    with world.errors_told_once():
        cases, unmasked = _cases_of(job, caches)
        if store is not None:
            store.make()
    mine = cases[world.rank :: world.size]
    num_stored = 0

    def tasks() -> Iterator[ScoringTask]:
        nonlocal num_stored
        for number, case in enumerate(mine):

            def predicted(share: float, number: int = number) -> None:
                progress(number + share, len(mine))

            task = _task(case, job, settings, models, masks_to, store, predicted)
            num_stored += isinstance(task.prediction, bytes)
            yield task

    scored = score_all(tasks(), len(mine), world, progress, num_spare_cores=1)
    facts = {**asdict(settings), **_facts(models)}
    if not job.without:
        del facts["without"]
    result = _gather(job, models.spec.regions, caches, scored, world, facts)
    if models.spec.labels:
        result = _classified(result, models.spec.labels, job.labels)
    return replace(result, num_stored=sum(world.all_gather(num_stored)), unmasked=unmasked)


def _classified(result: Evaluation, names: Sequence[str], truth: Mapping[str, str]) -> Evaluation:
    """The evaluation with the scores of its labels."""
    cases = tuple(
        ClassifiedCase(
            case=one.case,
            patient=one.patient,
            label=truth.get(one.case, ""),
            probabilities=one.labels,
        )
        for one in result.cases
    )
    summary = {**result.summary, "classification": summarise_classes(cases, names)}
    return replace(result, classified=cases, summary=summary)


def _facts(models: CaseModels) -> dict[str, Any]:
    """Post-processing and checkpoints for summary.json, by fold where there are folds."""
    told = {
        fold: {
            "postprocessing": {
                "tta": one.spec.postprocessing.tta,
                "rules": {
                    region: asdict(one.spec.postprocessing.rule(region))
                    for region in one.spec.regions
                },
            },
            "checkpoints": [
                {"path": str(path.absolute()), "fingerprint": fingerprint}
                for path, fingerprint in zip(one.paths, one.fingerprints, strict=True)
            ],
        }
        for fold, one in models.by_fold.items()
    }
    if None in told:
        return told[None]
    return {"folds": [{"fold": fold, **values} for fold, values in told.items()]}


def evaluate_files(
    job: EvaluationJob,
    regions: Sequence[str],
    folder: Path,
    caches: Sequence[Cache],
    world: World,
    progress: Progress,
) -> Evaluation:
    """Scores the masks in a folder, `<case>.nii.gz` or `<case>.nii`, without any model.

    Args:
        job: What to score.
        regions: The regions to score.
        folder: The masks.
        caches: The caches that hold the split.
        world: This process among its peers.
        progress: Called with the number of cases done and of all.

    Returns:
        The result, on every rank.

    Raises:
        BratsError: As `evaluate`.
        DataFaults: Masks are missing or cannot be used; all of them are named.
    """
    rules = MaskRules(regions=tuple(regions), slice_rows=job.rows, postprocessing=Postprocessing())
    with world.errors_told_once():
        cases, unmasked = _cases_of(job, caches)
        files = _find_masks(folder, [_id_of(case) for case in cases])
    mine = list(zip(cases, files, strict=True))[world.rank :: world.size]
    tasks = (
        ScoringTask(
            cache_path=cache.path, case=index, rules=rules, empty=job.empty, prediction=file
        )
        for (cache, index), file in mine
    )
    scored = score_all(tasks, len(mine), world, progress, num_spare_cores=0)
    result = _gather(job, regions, caches, scored, world, {"predictions": str(folder.absolute())})
    return replace(result, unmasked=unmasked)


def _cases_of(
    job: EvaluationJob, caches: Sequence[Cache]
) -> tuple[list[CaseOfCache], tuple[str, ...]]:
    """The cases of the split that have a mask, and the ids of those that have none."""
    cases = [
        (cache, int(index))
        for cache in caches
        for index in np.flatnonzero(case_splits(cache, job.fold) == job.split)
    ]
    names = ", ".join(str(cache.path) for cache in caches)
    if not cases:
        raise BratsError(f"{names}: no case in split {job.split}. Look with brats info.")
    masked = [case for case in cases if case[0].cases["has_mask"][case[1]]]
    unmasked = sorted({_id_of(case) for case in cases} - {_id_of(case) for case in masked})
    if not masked:
        raise BratsError(
            f"--split {job.split}: none of its {len(cases)} cases has a mask to be scored against "
            f"({first_few(unmasked, 3)}). Segment them with brats predict."
        )
    return sorted(masked, key=_id_of), tuple(unmasked)


def _id_of(case: CaseOfCache) -> str:
    cache, index = case
    return cache.case_id(index)


def _task(
    case: CaseOfCache,
    job: EvaluationJob,
    settings: InferenceSettings,
    models: CaseModels,
    masks_to: Path | None,
    store: MaskStore | None,
    progress: ShareDone,
) -> ScoringTask:
    """What is to be scored of a case: the model runs here, where nothing is stored."""
    cache, index = case
    ensemble = models.for_case(cache, index)
    rules = MaskRules.of(ensemble.spec, job.rows)
    key = key_of(cache, index, ensemble, rules, settings)
    stored = None if store is None else store.find(cache, index, key)
    prediction: CaseProbabilities | bytes = stored or predict_probabilities(
        cache, index, ensemble, rules, settings, progress
    )
    return ScoringTask(
        cache_path=cache.path,
        case=index,
        rules=rules,
        empty=job.empty,
        prediction=prediction,
        save_to=masks_to and mask_path(masks_to, _id_of(case)),
        store_to=(store.path(cache, index), key) if store and not stored else None,
    )


def predict_probabilities(
    cache: Cache,
    index: int,
    ensemble: Ensemble,
    rules: MaskRules,
    settings: InferenceSettings,
    progress: ShareDone = lambda share: None,
) -> CaseProbabilities:
    """Runs a model on case number `index` of a cache; `progress` see `Ensemble.predict`."""
    prediction = predict_cached_case(
        cache,
        index,
        ensemble,
        rules.postprocessing.tta,
        without=settings.without,
        progress=progress,
    )
    rows = slice_rows_of(cache, index, rules) - cache.row_slice(index).start
    slices = (prediction.network_output >= settings.slice_threshold).cpu().numpy()[rows]
    return CaseProbabilities(
        volume=prediction.probabilities,
        slices=slices,
        labels=prediction.labels,
        agreement=prediction.agreement,
    )


def _find_masks(folder: Path, names: Sequence[str]) -> list[Path]:
    """Finds the file of each case. Raises `DataFaults` with every case that has none, or two."""
    files: list[Path] = []
    faults: list[Fault] = []
    for name in names:
        candidates = [mask_path(folder, name, suffix) for suffix in (".nii.gz", ".nii")]
        present = [path for path in candidates if path.is_file()]
        if len(present) == 1:
            files += present
            continue
        faults.append(
            Fault(
                case=name,
                path=candidates[0],
                found="both this and a .nii" if present else "no such mask",
                expected="one mask a case, CASE.nii.gz or CASE.nii",
            )
        )
    if faults:
        raise DataFaults(faults)
    return files


def _gather(
    job: EvaluationJob,
    regions: Sequence[str],
    caches: Sequence[Cache],
    scored: tuple[list[CaseScores], list[Fault]],
    world: World,
    facts: Mapping[str, Any],
) -> Evaluation:
    """Collects the scores and faults of all ranks."""
    parts = world.all_gather(scored)
    if faults := [fault for _, part in parts for fault in part]:
        failure = DataFaults(faults)
        failure.is_shared = True
        raise failure
    everyone = [case for part, _ in parts for case in part]
    everyone.sort(key=lambda scores: scores.case)
    summary = summarise(
        everyone,
        regions,
        split=job.split,
        slice_rows=job.rows,
        empty=job.empty,
        facts=facts,
    )
    summary["caches"] = [
        {"path": str(cache.path.absolute()), "fingerprint": cache.fingerprint} for cache in caches
    ]
    return Evaluation(cases=tuple(everyone), summary=summary)
