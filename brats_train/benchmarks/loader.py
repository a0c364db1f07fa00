"""Benchmark of data loading: a bare memory copy, feeding from a cache, and with augmentation."""

from __future__ import annotations

from itertools import count

import numpy as np
import torch

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_train.benchmarks.harness import BenchmarkReport, Workload, measure_in_turn
from brats_train.data import augmentation as augment
from brats_train.data.augmentation import AugmentConfig
from brats_train.data.feeders import make_feeder
from brats_train.data.loader import Batch, Batches
from brats_train.data.sampler import Sampler
from brats_train.data.selection import RowSet, select_rows
from brats_train.runtime.distributed import World

__all__ = ["augment_batch", "bench_loader", "evenly_spread_rows", "loader_workloads"]


def bench_loader(
    caches: list[Cache],
    world: World,
    *,
    batch_size: int,
    num_steps: int,
    num_rounds: int,
    resident: str,
) -> BenchmarkReport:
    """Measures `loader_workloads`.

    Args:
        caches: One or several caches.
        world: This process.
        batch_size: Slices of a batch.
        num_steps: Batches of a round.
        num_rounds: Timed rounds.
        resident: See `brats_train.data.feeders.make_feeder`.

    Returns:
        Throughput in slices per second.
    """
    workloads = loader_workloads(
        caches, world, batch_size=batch_size, num_steps=num_steps, resident=resident
    )
    return BenchmarkReport(
        name="loader",
        unit="slices",
        settings={
            "batch size": batch_size,
            "slice": " x ".join(map(str, caches[0].shape[1:])),
            "steps a round": num_steps,
            "rounds": num_rounds,
            "resident": resident,
        },
        throughput=measure_in_turn(workloads, num_rounds=num_rounds, device=world.device),
        ratios=(("feeding", "bare copy"), ("feeding + augmentation", "feeding")),
        figures={},
    )


def loader_workloads(
    caches: list[Cache], world: World, *, batch_size: int, num_steps: int, resident: str
) -> list[Workload]:
    """Makes three workloads, whose round is an epoch of `num_steps` batches.

    - bare copy: as many bytes from memory to memory (for a GPU from pinned memory to the device).
    - feeding: rows of the caches to the device.
    - feeding + augmentation: the same, with the paper's augmentation on the device.
    """
    rows = evenly_spread_rows(caches, num_steps * batch_size)
    feeder = make_feeder(caches, rows, largest=batch_size, device=world.device, resident=resident)
    batches = Batches(
        feeder, Sampler.uniform(len(rows), seed=0), batch_size=batch_size, world=world
    )
    epochs = count()

    def feed() -> int:
        return sum(len(batch.images) for batch in batches.epoch(next(epochs)))

    def feed_and_augment() -> int:
        done = 0
        for batch in batches.epoch(next(epochs)):
            images, _ = augment_batch(batch, AugmentConfig(), seed=0)
            done += len(images)
        return done

    return [
        _bare_copy(caches[0].shape, world.device, batch_size, num_steps),
        Workload(name="feeding", run=feed),
        Workload(name="feeding + augmentation", run=feed_and_augment),
    ]


def evenly_spread_rows(caches: list[Cache], num: int) -> RowSet:
    """Selects `num` training rows, evenly spaced over the caches, repeated if fewer."""
    rows = select_rows(caches, "train", "all")
    if not len(rows):
        raise BratsError(f"{caches[0].path}: no training rows to measure with.")
    return rows[np.arange(num) * len(rows) // num]


def augment_batch(
    batch: Batch, config: AugmentConfig, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augments a batch as training does."""
    parameters = augment.draw(
        config,
        num_samples=len(batch.images),
        num_modalities=batch.images.shape[1],
        seed=seed,
        epoch=0,
        step=batch.step,
        device=batch.images.device,
    )
    return augment.apply(batch.images, batch.masks, parameters)


def _bare_copy(
    shape: tuple[int, int, int, int], device: torch.device, batch_size: int, num_steps: int
) -> Workload:
    """Copies whole batches of float16 images and uint8 masks: the upper bound of feeding."""
    _, channels, height, width = shape
    images = torch.ones((4, batch_size, channels, height, width), dtype=torch.float16)
    masks = torch.ones((4, batch_size, 1, height, width), dtype=torch.uint8)
    if device.type == "cuda":
        images, masks = images.pin_memory(), masks.pin_memory()
    to_images = torch.empty_like(images[0], device=device)
    to_masks = torch.empty_like(masks[0], device=device)

    def run() -> int:
        for step in range(num_steps):
            to_images.copy_(images[step % 4], non_blocking=True)
            to_masks.copy_(masks[step % 4], non_blocking=True)
        return num_steps * batch_size

    return Workload(name="bare copy", run=run)
