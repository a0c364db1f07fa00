"""Cross-validation: a training for each fold, one after the other, in one run directory.

Fold k lies in `foldK/`, an ordinary run whose fold k validates and whose other folds train. What
was finished is kept when the run is resumed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from brats_cache.common.errors import BratsError
from brats_cache.format.cache_set import open_caches
from brats_train.data.case_labels import label_cases
from brats_train.data.selection import folds_of
from brats_train.runtime.distributed import World
from brats_train.training.choose_postprocessing import check_truth_of, choose_for_folds
from brats_train.training.run_config import job_config
from brats_train.training.run_dir import RunDir
from brats_train.training.setup import resolve_recipe
from brats_train.training.state import Finished, TrainJob
from brats_train.training.trainer import Log, train

__all__ = ["train_folds"]


def train_folds(
    job: TrainJob,
    world: World,
    run: RunDir,
    *,
    resume: bool,
    log: Log,
    started: float | None = None,
) -> Finished:
    """Trains every fold, then chooses the post-processing of each on the cases of the others.

    Every rank calls it with the same arguments; the main rank writes.

    Args:
        job: What to train; `max_minutes` is for each fold.
        world: This process among its peers.
        run: The run directory, which the caller holds.
        resume: Go on with what is there.
        log: Takes lines of text for a person.
        started: Of the first fold, see `TimeBudget`.

    Raises:
        BratsError: The caches have fewer than two folds, the truth to choose by is gone, or see
            `trainer.train`.
    """
    with world.errors_told_once():
        caches = open_caches(job.cache_paths, same_modalities=False, by_fold=True)
        folds = folds_of(caches)
        if len(folds) < 2:
            raise BratsError(
                f"--fold all: {caches[0].path} has no folds. Build it with --folds K, K at least 2."
            )
        labels = job.labels or (label_cases(job.classify, caches) if job.classify else {})
        job = replace(job, recipe=resolve_recipe(job.recipe, caches, log), labels=labels)
    if job.recipe.choose and not resume:
        world.decide_on_main(lambda: check_truth_of(caches, folds))
    runs = {fold: RunDir(run.path / f"fold{fold}") for fold in folds}
    config = {**job_config(job, caches), "world_size": world.size}
    if resume:
        world.decide_on_main(lambda: _check_same(run, config))
    if world.is_main:
        if resume:
            run.write_config(config)
        else:
            run.begin(config)
        for one in runs.values():
            one.path.mkdir(exist_ok=True)
        if warning := run.make_latest():
            log(f"Warning: {warning}")
    world.wait_for_main()  # the folders are there
    best_epoch = 0
    for fold, one in runs.items():
        is_begun = world.decide_on_main(one.has_checkpoint)
        log(f"Fold {fold} of {len(folds)}: {one.path}")
        with one.locked("brats train") if world.is_main else nullcontext():
            finished = train(
                replace(job, fold=fold), world, one, resume=is_begun, log=log, started=started
            )
        started = time.monotonic()
        if finished.is_resumable:
            return finished
        best_epoch = finished.best_epoch
    if job.recipe.choose:
        choose_for_folds(job, runs, world, log)
    return Finished(f"all {len(folds)} folds are done", best_epoch, is_resumable=False)


def _check_same(run: RunDir, config: Mapping[str, Any]) -> None:
    """As `RunDir.check_same`; earlier versions kept the labels of cases in the folds alone."""
    has_labels = run.read_config().get("labels") is not None
    run.check_same(config if has_labels else {**config, "labels": None})
