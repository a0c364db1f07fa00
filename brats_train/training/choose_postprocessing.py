"""Chooses the post-processing of a trained run, or of each fold of a cross-validation.

How rules are compared is in `evaluation.tune_postprocessing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from brats_cache.common.errors import BratsError
from brats_cache.common.progress import show_progress
from brats_cache.format.cache_set import open_caches
from brats_cache.format.reader import Cache
from brats_cache.format.truth import check_truth
from brats_train.data.selection import Fold
from brats_train.evaluation.tune_postprocessing import (
    cases_to_choose_by,
    choose_postprocessing,
    measure_cases,
    record_postprocessing,
)
from brats_train.inference.ensemble import load_ensemble
from brats_train.runtime.distributed import World
from brats_train.training.run_dir import RunDir
from brats_train.training.state import Progress, TrainJob

__all__ = ["check_truth_of", "choose_for_folds", "choose_for_run"]

Log = Callable[[str], None]


def check_truth_of(caches: Sequence[Cache], folds: Iterable[Fold]) -> None:
    """Checks that the truth of the validation cases is at hand, before a training that needs it.

    Args:
        caches: The opened caches.
        folds: Whose validation cases.

    Raises:
        BratsError: A source mask is needed and gone.
    """
    try:
        for fold in folds:
            for cache, case in cases_to_choose_by(caches, fold):
                check_truth(cache, case)
    except BratsError as error:
        raise BratsError(
            f"{error} Or train without choosing the post-processing: --set choose=false."
        ) from error


def choose_for_run(
    job: TrainJob,
    caches: Sequence[Cache],
    run: RunDir,
    progress: Progress,
    world: World,
    log: Log,
) -> None:
    """Chooses the rules of a run on its validation cases and writes them into its best.pt.

    With --max-minutes the choice may take a part of the time alone, which `ScheduleFit` has put
    into `progress.num_choice_cases`; where that is too little, the rules of the recipe stay.

    Args:
        job: What was trained.
        caches: Its caches.
        run: Its directory; best.pt is complete.
        progress: Where the training ended.
        world: This process among its peers; every rank takes part, the main rank writes.
        log: Takes lines of text for a person.

    Raises:
        BratsError: No validation case has a mask.
    """
    if not progress.schedule_is_final:
        log("The minutes were over before a step had been timed: post-processing is not chosen")
        return
    at_most = progress.num_choice_cases
    if at_most == 0:
        log(
            f"Choosing the post-processing would take more than a fifth of --max-minutes "
            f"{job.max_minutes:g}: that of the recipe stays"
        )
        return
    some = "the" if at_most is None else f"{at_most} of the"
    log(f"Choosing the post-processing on {some} validation cases")
    ensemble = load_ensemble([run.best], world.device)
    with show_progress("Choosing", "cases", is_shown=world.is_main) as show:
        measured = measure_cases(caches, job.fold, ensemble, world, show, at_most)
    chosen = choose_postprocessing(measured, ensemble.spec.regions, job.recipe.postprocessing)
    if world.is_main:
        record_postprocessing(run.best, chosen)
    log(f"Chosen: {chosen.describe(ensemble.spec.regions)}")


def choose_for_folds(job: TrainJob, runs: Mapping[int, RunDir], world: World, log: Log) -> None:
    """Chooses the rules of each fold on the cases of the others, which do not judge its model.

    Args:
        job: What was trained; `job.fold` does not matter.
        runs: The run directory of each fold.
        world: This process among its peers; every rank takes part, the main rank writes.
        log: Takes lines of text for a person.

    Raises:
        BratsError: The validation cases of a fold have no mask.
    """
    log("Choosing the post-processing of each fold on the cases of the others")
    caches = open_caches(job.cache_paths, same_modalities=False, by_fold=True)
    measured = dict[int, Any]()
    for fold, run in runs.items():
        ensemble = load_ensemble([run.best], world.device)
        with show_progress(f"Choosing, fold {fold}", "cases", is_shown=world.is_main) as show:
            measured[fold] = measure_cases(caches, fold, ensemble, world, show)
    regions = ensemble.spec.regions
    for fold, run in runs.items():
        others: dict[Any, Any] = {}
        for other, curves in measured.items():
            others |= curves if other != fold else {}
        chosen = choose_postprocessing(others, regions, job.recipe.postprocessing)
        if world.is_main:
            record_postprocessing(run.best, chosen)
        log(f"Fold {fold}: {chosen.describe(regions)}")
