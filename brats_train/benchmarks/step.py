"""Benchmark of the training step: with and without augmentation, and with and without loading."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle

import torch

from brats_cache.format.reader import Cache
from brats_train.benchmarks.harness import BenchmarkReport, Workload, measure_in_turn
from brats_train.benchmarks.loader import evenly_spread_rows
from brats_train.data.augmentation import AugmentConfig
from brats_train.data.feeders import make_feeder
from brats_train.data.loader import Batch, Batches
from brats_train.data.sampler import Sampler
from brats_train.runtime.compile import CompileMode
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import configure_torch
from brats_train.training.recipe import Recipe
from brats_train.training.train_step import TrainStep
from brats_train.training.validation import NAMES

__all__ = ["bench_step"]

_NO_AUGMENTATION = AugmentConfig(
    hflip=0, vflip=0, rotate_degrees=0, brightness=0, contrast=0, saturation=0, hue=0
)


def bench_step(
    caches: list[Cache],
    world: World,
    recipe: Recipe,
    *,
    num_steps: int,
    num_rounds: int,
    resident: str,
    compile_mode: CompileMode,
) -> BenchmarkReport:
    """Measures the training step of a recipe. A round is `num_steps` steps.

    - pure: forward, backward and optimizer on batches already on the device, no augmentation.
    - synthetic: with augmentation.
    - real: with augmentation, rows streamed from the memory map.
    - resident: with augmentation, rows kept on the device; left out with `resident` "never", and
      with "auto" on a CPU.

    Args:
        caches: One or several caches.
        world: This process.
        recipe: What a step is.
        num_steps: Steps of a round.
        num_rounds: Timed rounds.
        resident: "auto", "never" or "always".
        compile_mode: Whether and how to use torch.compile.

    Returns:
        Throughput in slices per second, the share of time spent waiting for data, and peak memory.
    """
    device = world.device
    configure_torch(device, deterministic=False)
    fed = {"real": _feed(caches, world, recipe, num_steps, "never")}
    if resident == "always" or (resident == "auto" and device.type == "cuda"):
        fed["resident"] = _feed(caches, world, recipe, num_steps, "always")
    train_step = TrainStep(
        recipe,
        caches,
        world,
        largest=recipe.batch_size,
        least=recipe.batch_size,
        micro_batch="auto",
        init_from=None,
        compile_mode=compile_mode,
    )
    train_step.model.train()
    if device.type == "cuda":  # without what choosing the micro-batch has used
        torch.cuda.reset_peak_memory_stats(device)
    workloads, waits = _workloads(train_step, recipe, num_steps, fed)
    throughput = measure_in_turn(workloads, num_rounds=num_rounds, device=device)
    return BenchmarkReport(
        name="step",
        unit="slices",
        settings={
            "batch size": recipe.batch_size,
            "micro-batch": train_step.micro_batch,
            "slice": " x ".join(map(str, caches[0].shape[1:])),
            "amp": train_step.amp,
            "compiled": compile_mode,
            "network": f"{recipe.model.architecture}, {recipe.model.encoder}",
            "steps a round": num_steps,
            "rounds": num_rounds,
        },
        throughput=throughput,
        ratios=(("synthetic", "pure"), *((name, "synthetic") for name in fed)),
        figures={
            **{f"{name}: wait %": sum(waits[name][1:]) / num_rounds for name in fed},
            **{
                f"{name}: ms a step": 1e3 * recipe.batch_size / throughput.median(name)
                for name in throughput.by_name
            },
            "peak memory GiB": _peak_bytes(device) / 2**30,
        },
    )


def _workloads(
    train_step: TrainStep, recipe: Recipe, num_steps: int, fed: dict[str, _EndlessBatches]
) -> tuple[list[Workload], dict[str, list[float]]]:
    """The workloads, and lists to hold the percentage of each round spent waiting for data."""
    totals = torch.zeros(len(NAMES), dtype=torch.float64, device=train_step.world.device)
    in_place = cycle(fed["real"].copies(num_steps))
    waits: dict[str, list[float]] = {name: [] for name in fed}

    def steps(next_batch: Callable[[], Batch]) -> int:
        done = 0
        for _ in range(num_steps):
            batch = next_batch()
            train_step(batch, 0, recipe.lr, totals)
            done += batch.global_size
        return done

    def synthetic() -> int:
        return steps(lambda: next(in_place))

    def pure() -> int:
        train_step.recipe = replace(recipe, augment=_NO_AUGMENTATION)
        try:
            return synthetic()
        finally:
            train_step.recipe = recipe

    def feeding(name: str) -> Workload:
        def run() -> int:
            started, waited = time.perf_counter(), fed[name].waited_seconds
            done = steps(fed[name].next)
            seconds = time.perf_counter() - started
            waits[name].append(100 * (fed[name].waited_seconds - waited) / seconds)
            return done

        return Workload(name=name, run=run)

    workloads = [Workload(name="pure", run=pure), Workload(name="synthetic", run=synthetic)]
    return [*workloads, *map(feeding, fed)], waits


def _feed(
    caches: list[Cache], world: World, recipe: Recipe, num_steps: int, resident: str
) -> _EndlessBatches:
    rows = evenly_spread_rows(caches, num_steps * recipe.batch_size)
    feeder = make_feeder(
        caches,
        rows,
        context=recipe.context,
        largest=recipe.batch_size,
        device=world.device,
        resident=resident,
    )
    return _EndlessBatches(
        Batches(
            feeder,
            Sampler.uniform(len(rows), seed=recipe.seed),
            batch_size=recipe.batch_size,
            world=world,
        )
    )


class _EndlessBatches:
    """Batches of one epoch after another."""

    def __init__(self, batches: Batches) -> None:
        self._batches, self._epoch, self._before = batches, 0, 0.0
        self._running: Iterator[Batch] = iter(())

    @property
    def waited_seconds(self) -> float:
        """Seconds spent waiting for data so far."""
        return self._before + (self._batches.waited_seconds if self._epoch else 0.0)

    def next(self) -> Batch:
        batch = next(self._running, None)
        while batch is None:
            self._before = self.waited_seconds
            self._running = self._batches.epoch(self._epoch)
            self._epoch += 1
            batch = next(self._running, None)
        return batch

    def copies(self, at_most: int) -> list[Batch]:
        """One or two batches, copied to memory of their own on the device."""
        return [
            replace(batch, images=batch.images.clone(), masks=batch.masks.clone())
            for batch in (self.next() for _ in range(min(at_most, 2)))
        ]


def _peak_bytes(device: torch.device) -> int:
    """Peak memory: reserved on the GPU by torch's allocator, or resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
