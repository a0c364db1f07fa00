"""Benchmark `epoch`: one epoch of one model, fed and augmented by each way in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from brats_cache.format.reader import Cache, open_cache
from brats_train.benchmarks.loader import augment_batch, evenly_spread_rows
from brats_train.data.augmentation import AugmentConfig
from brats_train.data.feeders import make_feeder
from brats_train.data.loader import Batches
from brats_train.data.sampler import Sampler
from brats_train.data.selection import RowSet
from brats_train.models.network import ModelConfig, build_model
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import autocast, choose_amp, configure_torch
from peers.job import Job
from peers.slices import (
    HeldSlices,
    epoch_loader,
    images_and_masks,
    monai_dataset,
    torchio_dataset,
)
from peers.ways import LIMIT, OURS, Benchmark, Way, measure, prepare_process, wanted

__all__ = ["run"]

CPU = torch.device("cpu")
Pairs = Callable[[], Iterator[tuple[Tensor, Tensor]]]  # images (B, C, S, S), masks (B, 1, S, S)


def run(job: Job, save: Callable[[dict[str, Any]], None]) -> None:
    """Measures the ways with one model, one optimizer and one step for all."""
    prepare_process(job)
    configure_torch(CPU, deterministic=False)
    cache = open_cache(job.cache_path)
    rows = evenly_spread_rows([cache], job.epoch_slices)
    held = HeldSlices.of(cache, rows)
    step = Step(cache.shape[1])

    def torchio() -> Way:
        from torchio import SubjectsLoader

        return _way(
            step,
            "TorchIO",
            "torchio",
            "SubjectsLoader over subjects in memory, augmented in the worker processes.",
            _loaded(job, torchio_dataset(held, augments=True), SubjectsLoader),
        )

    makers = {
        LIMIT: lambda: [
            _way(
                step,
                "model alone",
                LIMIT,
                "The same batches without loading and augmentation: the upper bound.",
                _ready(held, job.epoch_batch_size),
            )
        ],
        OURS: lambda: [
            _way(
                step,
                "brats",
                OURS,
                "Rows of the memory map, augmented batch by batch in the main process.",
                _ours(job, cache, rows),
            )
        ],
        "monai": lambda: [
            _way(
                step,
                "MONAI CacheDataset",
                "monai",
                "DataLoader over slices in memory, augmented in the worker processes.",
                _loaded(job, monai_dataset(held, augments=True)),
            )
        ],
        "torchio": lambda: [torchio()],
    }
    benchmark = Benchmark(
        title="One epoch, end to end, of one model at one batch size",
        unit="slice",
        shown="rate",
        settings={
            "slices": job.epoch_slices,
            "batch size": job.epoch_batch_size,
            "slice": " x ".join(map(str, cache.shape[1:])),
            "network": "Unet, resnet34",
            "precision": step.amp,
        },
        remarks=[
            "The model, AdamW, loss (binary cross-entropy), precision, channels_last and step "
            "are the same object for all; only loading and the paper's augmentation differ. All "
            "slices lie in memory or in the page cache and workers have started; decoding and "
            "preprocessing scans is what `cache` measures.",
            "On a CPU the model takes nearly all of the time and worker processes compete with it "
            "for its cores, so little can be gained by feeding it well: ratios near 1 are to be "
            "expected. What a GPU would wait for is the rates of `feeding`.",
        ],
    )
    measure(job, benchmark, wanted(job, makers), save, warm_up=True)


class Step:
    """A plain training step, the same for all ways."""

    def __init__(self, in_channels: int) -> None:
        torch.manual_seed(0)
        self.amp = choose_amp("auto", CPU)
        self.model = build_model(ModelConfig(in_channels=in_channels, classes=1))
        self.model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)

    def __call__(self, images: Tensor, masks: Tensor) -> None:
        """Learns the whole tumour of a batch."""
        images = images.float().contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.amp, CPU):
            logits = self.model(images)
        loss = F.binary_cross_entropy_with_logits(logits.float(), (masks > 0).float())
        loss.backward()
        self.optimizer.step()


def _way(step: Step, name: str, peer: str, note: str, pairs: Pairs) -> Way:
    def run() -> int:
        done = 0
        for images, masks in pairs():
            step(images, masks)
            done += len(images)
        return done

    return Way(name=name, peer=peer, note=note, run=run)


def _ready(held: HeldSlices, batch_size: int) -> Pairs:
    images, masks = torch.from_numpy(held.images), torch.from_numpy(held.masks)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        return zip(images.split(batch_size), masks.split(batch_size), strict=True)

    return pairs


def _ours(job: Job, cache: Cache, rows: RowSet) -> Pairs:
    feeder = make_feeder([cache], rows, largest=job.epoch_batch_size, device=CPU, resident="never")
    batches = Batches(
        feeder,
        Sampler.uniform(len(rows), seed=0),
        batch_size=job.epoch_batch_size,
        world=World(rank=0, size=1, device=CPU),
    )
    epochs = count()

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches.epoch(next(epochs)):
            yield augment_batch(batch, AugmentConfig(), seed=0)

    return pairs


def _loaded(
    job: Job, dataset: Dataset[Any], kind: Callable[..., DataLoader[Any]] = DataLoader
) -> Pairs:
    loader = epoch_loader(
        dataset,
        num_slices=job.epoch_slices,
        batch_size=job.epoch_batch_size,
        workers=job.workers,
        kind=kind,
    )

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in loader:
            yield images_and_masks(batch)

    return pairs
