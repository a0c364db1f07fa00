"""Fits a recipe to its data and checks both before the first step: rows, sizes, labels, batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import REGIONS
from brats_train.data.augmentation import window_pixels
from brats_train.data.selection import Fold, RowSet, select_rows, share_of_patients
from brats_train.runtime.compile import CompileMode
from brats_train.training.recipe import TARGETS, Recipe
from brats_train.training.state import TrainJob

__all__ = [
    "accepts_missing",
    "check_batch",
    "check_data",
    "check_samples",
    "common_scheme",
    "fewest_at_once",
    "file_identity",
    "resolve_recipe",
    "side_of",
    "training_rows",
]

MIN_SIZE = 32  # pixels; the encoder halves a slice five times


def resolve_recipe(recipe: Recipe, caches: Sequence[Cache], log: Callable[[str], None]) -> Recipe:
    """Settles what a recipe leaves to the data.

    Args:
        recipe: The recipe.
        caches: The opened caches.
        log: Takes a note where slices cannot be halved.

    Returns:
        A copy whose target is "regions" or "wt", as the labels of all cases allow, and whose
        `half_resolution` is 0 where the slices cannot be halved.
    """
    if recipe.target == "auto":
        schemes = [
            cache.scheme(int(case))
            for cache in caches
            for case in np.flatnonzero(cache.cases["has_mask"])
        ]
        knows_all = all(set(TARGETS["regions"]) <= set(scheme.regions) for scheme in schemes)
        recipe = replace(recipe, target="regions" if knows_all else "wt")
    side = side_of(recipe, caches[0].shape[-1])
    if recipe.half_resolution and side % (2 * MIN_SIZE):
        log(f"Note: {side} pixels cannot be halved; every step is taken at full resolution.")
        recipe = replace(recipe, half_resolution=0.0)
    return recipe


def accepts_missing(recipe: Recipe, caches: Sequence[Cache]) -> bool:
    """Whether a model learns to do without a modality: some of its slices lack one."""
    held = {frozenset(cache.preparation.modalities) for cache in caches}
    return recipe.augment.modality_dropout > 0 or len(held) > 1


def side_of(recipe: Recipe, size: int) -> int:
    """Pixels along each axis that are trained on, of slices of `size`."""
    multiple = MIN_SIZE * (2 if recipe.half_resolution else 1)
    return window_pixels(recipe.augment, size, multiple) or size


def training_rows(caches: Sequence[Cache], recipe: Recipe, fold: Fold) -> RowSet:
    """The slices that a recipe trains on.

    Raises:
        BratsError: Not as many weights as caches, or see `select_rows`.
    """
    num_weights = len(recipe.cache_weights)
    if num_weights not in (0, len(caches)):
        raise BratsError(
            f"{num_weights} x --cache-weight for {len(caches)} caches; expected one for each, in "
            "the order of --cache, or none."
        )
    rows = select_rows(caches, "train", recipe.rows, fold)
    return share_of_patients(caches, rows, recipe.patient_share, recipe.seed)


def check_data(
    caches: Sequence[Cache],
    train_rows: RowSet,
    val_rows: RowSet,
    job: TrainJob,
    log: Callable[[str], None],
) -> None:
    """Checks that a model can be trained on the selected slices.

    Args:
        caches: The opened caches.
        train_rows: Slices to train on.
        val_rows: Slices to validate on; none is worth a warning.
        job: What to train.
        log: Takes warnings.

    Raises:
        BratsError: A size that the U-Net cannot halve five times, no training slices or none with
            a tumour, or masks that do not know a region.
    """
    recipe, size = job.recipe, caches[0].shape[-1]
    names = ", ".join(str(cache.path) for cache in caches)
    if size % MIN_SIZE:
        raise BratsError(
            f"{caches[0].path}: slices of {size} pixels, but the U-Net halves them five times. "
            "Build the cache with a --size that is a multiple of 32."
        )
    if not len(train_rows):
        raise BratsError(f"{names}: no training rows (rows={recipe.rows}). Look with brats info.")
    if not job.allow_no_tumor and not _any_tumor(caches, train_rows):
        raise BratsError(
            f"{names}: none of the {len(train_rows)} training slices (rows={recipe.rows}) holds a "
            "single pixel of tumour, so there is nothing to train on. Train on other slices with "
            "--set rows=all, look at the masks, or insist with --allow-no-tumor."
        )
    if not len(val_rows):
        log("Warning: no validation rows; the last weights are the best checkpoint.")
    for cache in caches:
        for index in np.flatnonzero(cache.cases["has_mask"]):
            known = cache.scheme(int(index)).regions
            if missing := [region for region in recipe.regions if region not in known]:
                raise BratsError(
                    f"{cache.path}: the mask of {cache.case_id(int(index))} (scheme "
                    f"{cache.scheme(int(index)).name}) does not know {', '.join(missing)}. "
                    "Train with --target wt."
                )


def check_batch(recipe: Recipe, micro_batch: int, largest: int, compile_mode: CompileMode) -> None:
    """Raises `BratsError` where a whole batch is needed that is computed in pieces."""
    # A replayed graph writes the gradients of a piece where those of the piece before lie.
    if compile_mode == "reduce-overhead" and micro_batch < largest:
        raise BratsError(
            f"--compile reduce-overhead: the {largest} samples of a step must be computed at once, "
            f"and are in pieces of {micro_batch}. Choose a smaller --batch-size, or --compile."
        )
    if recipe.loss.overlap == "batch" and micro_batch < largest:
        raise BratsError(
            f"--micro-batch {micro_batch}: loss.overlap=batch counts over the whole batch of "
            f"{largest} samples a process, which must be computed at once. Choose a smaller "
            "--batch-size, more processes, or loss.overlap=sample."
        )


def file_identity(path: Path) -> tuple[int, int, int] | None:
    """Inode, size in bytes and time of change in ns, which tell a file from another of its name.

    None where there is no such file.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def common_scheme(caches: Sequence[Cache]) -> str:
    """The label scheme of the first case that has a mask."""
    for cache in caches:
        for index in np.flatnonzero(cache.cases["has_mask"]):
            return cache.scheme(int(index)).name
    raise BratsError(f"{caches[0].path}: no case has a mask, so there is nothing to train on.")


def _any_tumor(caches: Sequence[Cache], rows: RowSet) -> bool:
    """Whether any of the slices holds a pixel of the whole tumour."""
    labels = sorted(REGIONS["wt"])
    return any(
        cache.slices["label_pixels"][rows.row[rows.cache == number]][:, labels].any()
        for number, cache in enumerate(caches)
    )


def check_samples(num_samples: int, num_rows: int) -> None:
    """Raises `BratsError` where the weights of the caches leave an epoch without a sample."""
    if not num_samples:
        raise BratsError(
            f"--cache-weight: so small that an epoch takes none of the {num_rows} training rows. "
            "Choose larger weights."
        )


def fewest_at_once(num_samples: int, batch_size: int, world_size: int, micro_batch: str) -> int:
    """The fewest samples that any rank computes at once in the steps of an epoch.

    Args:
        num_samples: Of an epoch.
        batch_size: Of a step, over all ranks.
        world_size: Number of ranks; one without a sample computes another's.
        micro_batch: "auto" or a number.
    """
    sizes = {min(num_samples, batch_size), num_samples % batch_size} - {0}
    # What is no number is refused by `choose_micro_batch`.
    is_cut = micro_batch.isdecimal() and int(micro_batch) > 0
    fewest = []
    for size in sizes:
        largest, least = -(-size // world_size), max(1, size // world_size)
        # As many pieces on every rank, see `TrainStep`.
        num_pieces = min(-(-largest // int(micro_batch)), least) if is_cut else 1
        fewest.append(least // num_pieces)
    return min(fewest)
