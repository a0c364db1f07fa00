"""What a training works with: caches, rows, batches, step and validation, made in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from brats_cache.format.cache_set import open_caches
from brats_cache.format.reader import Cache
from brats_train.data.case_labels import SliceLabels, label_cases, slice_labels
from brats_train.data.channels import all_modalities
from brats_train.data.feeders import make_feeder, resident_bytes
from brats_train.data.loader import Batches
from brats_train.data.sampler import Sampler, make_sampler
from brats_train.data.selection import RowSet, select_rows
from brats_train.inference.scan_look import looks_of_rows
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import configure_torch
from brats_train.training.setup import (
    check_data,
    check_samples,
    fewest_at_once,
    file_identity,
    resolve_recipe,
    training_rows,
)
from brats_train.training.state import TrainJob
from brats_train.training.train_step import TrainStep
from brats_train.training.validation import Validator

__all__ = ["Parts", "assemble"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """What one rank trains with.

    Attributes:
        job: As it was asked for, with the recipe that fits the caches and the labels of the cases.
        caches: The opened caches.
        cache_files: Which files they were when they were opened, see `setup.file_identity`.
        train_rows: The rows that are trained on.
        train_step: Model, optimizer and what a step does with them.
        batches: This rank's share of every epoch.
        validator: This rank's share of every validation.
    """

    job: TrainJob
    caches: Sequence[Cache]
    cache_files: Sequence[tuple[int, int, int] | None]
    train_rows: RowSet
    train_step: TrainStep
    batches: Batches
    validator: Validator


def assemble(
    job: TrainJob, world: World, log: Callable[[str], None], weights_from: str | None = None
) -> Parts:
    """Opens the caches and builds data path, model and optimizer; every rank calls it.

    Args:
        job: What to train.
        world: This process among its peers.
        log: Takes lines of text for a person.
        weights_from: Where the first weights of a run that goes on came from; none are loaded then.

    Raises:
        BratsError: The data cannot be trained on, or not by this recipe.
    """
    with world.errors_told_once():
        caches = open_caches(job.cache_paths, same_modalities=False, by_fold=job.fold is not None)
        cache_files = [file_identity(cache.path) for cache in caches]
        recipe = resolve_recipe(job.recipe, caches, log)
        job = replace(job, recipe=recipe)
        train_rows = training_rows(caches, recipe, job.fold)
        val_rows = select_rows(caches, "val", recipe.rows, job.fold)
        check_data(caches, train_rows, val_rows, job, log)
        background = recipe.background if recipe.sampling == "tumor" else None
        sampler = make_sampler(caches, train_rows, recipe.seed, background, recipe.cache_weights)
        check_samples(sampler.num_samples, len(train_rows))
        job, labels = _read_labels(job, caches, train_rows)
    configure_torch(world.device, deterministic=job.deterministic)
    # Samples that this rank sees at most in a step.
    largest = -(-min(recipe.batch_size, sampler.num_samples) // world.size)
    # The step comes first: it is tried out how much memory it takes, and leaves to the rows.
    train_step = _make_step(
        job, world, caches, train_rows, val_rows, sampler, largest, labels, weights_from
    )
    feeder = make_feeder(
        caches,
        train_rows,
        context=recipe.context,
        largest=largest,
        device=world.device,
        resident=job.resident,
        step_bytes=train_step.step_bytes,
    )
    with world.errors_told_once():
        batches = Batches(feeder, sampler, batch_size=recipe.batch_size, world=world)
    return Parts(
        job=job,
        caches=caches,
        cache_files=cache_files,
        train_rows=train_rows,
        train_step=train_step,
        batches=batches,
        validator=Validator(
            caches, val_rows, recipe, train_step.amp, world, job.resident, train_step.step_bytes
        ),
    )


def _read_labels(
    job: TrainJob, caches: Sequence[Cache], train_rows: RowSet
) -> tuple[TrainJob, SliceLabels | None]:
    """The job with the label of each case, and those of its slices; None without a second head."""
    if not job.classify:
        return job, None
    by_case = job.labels or label_cases(job.classify, caches)
    balanced = job.recipe.label_balance
    labels = slice_labels(caches, train_rows, by_case, is_balanced=balanced)
    return replace(job, labels=by_case), labels


def _make_step(
    job: TrainJob,
    world: World,
    caches: Sequence[Cache],
    train_rows: RowSet,
    val_rows: RowSet,
    sampler: Sampler,
    largest: int,
    labels: SliceLabels | None,
    weights_from: str | None,
) -> TrainStep:
    recipe = job.recipe
    # What --resident always keeps on the device beside the step.
    kept = (train_rows, val_rows[world.local_slice(len(val_rows))])
    num_bytes = sum(resident_bytes(caches, rows, recipe.context) for rows in kept)
    return TrainStep(
        recipe,
        caches,
        world,
        largest=largest,
        least=fewest_at_once(sampler.num_samples, recipe.batch_size, world.size, job.micro_batch),
        micro_batch=job.micro_batch,
        init_from=job.init_from,
        weights_from=weights_from,
        compile_mode=job.compile,
        labels=labels,
        looks=looks_of_rows(caches, train_rows, all_modalities(caches)),
        resident_bytes=num_bytes if job.resident == "always" else 0,
    )
