"""`brats train --dry-run`: what would be trained, its memory and its time, without a run."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from brats_cache.common.progress import duration
from brats_train.data.selection import folds_of
from brats_train.models.pretrained import WeightsNotFoundError
from brats_train.runtime.distributed import World
from brats_train.training.micro_batch import oom_as_error
from brats_train.training.run_config import introduction
from brats_train.training.run_dir import RunDir
from brats_train.training.state import TrainJob
from brats_train.training.trainer import Log, Trainer

__all__ = ["describe_training"]

NUM_STEPS = 3  # of each resolution; the first allocates memory and does not count


def describe_training(
    job: TrainJob, world: World, log: Log, held: Mapping[str, Any] | None = None
) -> None:
    """Takes a few steps that are forgotten again, and says what the whole training would take.

    Nothing is written. Every rank calls it with the same arguments.

    Args:
        job: What to train; of all folds the first is tried.
        world: This process among its peers.
        log: Takes lines of text for a person.
        held: The config.json of a run that would go on.

    Raises:
        BratsError: The data cannot be trained on, or memory ran out.
    """
    with oom_as_error(job.micro_batch, world):
        num_folds, job = _first_fold(job)
        trainer = _make_trainer(job, world, log, held)
        recipe, num_steps = trainer.recipe, trainer.batches.num_steps
        log(introduction(trainer.config(), num_steps, trainer.progress))
        share = recipe.half_resolution
        fine = _seconds_a_step(trainer, is_coarse=False)
        coarse = _seconds_a_step(trainer, is_coarse=True) if share else fine
        step = share * coarse + (1 - share) * fine
        validation = trainer.validator.estimate_seconds(trainer.train_step.eval_model)
    epoch = num_steps * step + validation
    half = f" ({coarse:.2f} s at half resolution)" if share else ""
    log(f"A step of {recipe.batch_size} slices takes {fine:.2f} s{half}.")
    log(f"An epoch of {num_steps} steps with validation takes {duration(epoch)}.")
    if job.max_minutes:
        log(f"As many epochs as fit are trained in --max-minutes {job.max_minutes:g}.")
    else:
        of_all = ", those that are done included" if held else ""
        log(f"At most {recipe.epochs} epochs take {duration(recipe.epochs * epoch)}{of_all}.")
    if num_folds:
        log(f"That is for each of {num_folds} folds.")
    log(f"Memory: {_peak_bytes(world) / 2**30:.1f} GiB of {world.device}.")


def _make_trainer(job: TrainJob, world: World, log: Log, held: Mapping[str, Any] | None) -> Trainer:
    """A trainer that need not have the encoder's weights, whose values change neither memory nor
    time."""
    run = RunDir(Path("dry-run"))
    try:
        return Trainer(job, world, run, log, held=held)
    except WeightsNotFoundError as error:
        log(f"Note: a training would stop here: {error}")
        recipe = replace(job.recipe, encoder_weights="none")
        return Trainer(replace(job, recipe=recipe), world, run, log)


def _first_fold(job: TrainJob) -> tuple[int, TrainJob]:
    """The number of folds that a job trains, 0 for none, and the job of the first one."""
    if job.fold != "all":
        return 0, job
    from brats_cache.format.cache_set import open_caches

    folds = folds_of(open_caches(job.cache_paths, same_modalities=False, by_fold=True))
    return len(folds), replace(job, fold=folds[0] if folds else 0)


def _seconds_a_step(trainer: Trainer, *, is_coarse: bool) -> float:
    train_step = trainer.train_step
    train_step.model.train()
    totals = torch.zeros_like(trainer.progress.totals)
    epochs = chain.from_iterable(trainer.batches.epoch(epoch) for epoch in range(NUM_STEPS))
    ends = []
    for batch in islice(epochs, NUM_STEPS):  # an epoch can be a single step
        train_step(batch, 0, 0.0, totals, is_coarse=is_coarse)
        int(train_step.first_nonfinite)  # waits for the device
        ends.append(time.monotonic())
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def _peak_bytes(world: World) -> int:
    """The most memory that this process has held: of the GPU, or of the machine."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_reserved(world.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
