"""Benchmark `feeding`: slices a second that reach the trainer, with and without augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from brats_cache.format.reader import Cache, open_cache
from brats_train.benchmarks.loader import evenly_spread_rows, loader_workloads
from brats_train.runtime.distributed import World
from peers.job import Job
from peers.slices import (
    H5pyRows,
    HeldSlices,
    NiftiSlices,
    epoch_loader,
    images_and_masks,
    monai_dataset,
    torchio_dataset,
)
from peers.ways import LIMIT, OURS, Benchmark, Way, measure, prepare_process, wanted

__all__ = ["run"]

NUM_STEPS = 20  # batches of a round of brats; slower ways have fewer
NUM_HELD = 64  # slices that the peers keep in memory
AUGMENTED = "augmented by the paper's recipe"


def run(job: Job, save: Callable[[dict[str, Any]], None]) -> None:
    """Measures the ways; see the notes of each for what it does."""
    prepare_process(job)
    cache = open_cache(job.cache_path)
    held = HeldSlices.of(cache, evenly_spread_rows([cache], NUM_HELD))

    def monai() -> list[Way]:
        name, note = "MONAI CacheDataset", "DataLoader over slices kept in memory, float32"
        augmented = f"{note}, {AUGMENTED} (see peers/slices.py), in the worker processes."
        kept, changed = monai_dataset(held, augments=False), monai_dataset(held, augments=True)
        return [
            _loading(job, name, "monai", f"{note}.", kept, num_batches=6),
            _loading(job, f"{name}, augmented", "monai", augmented, changed, num_batches=4),
        ]

    def torchio() -> list[Way]:
        from torchio import SubjectsLoader as Loader

        name, note = "TorchIO", "SubjectsLoader over subjects of one slice kept in memory, float32"
        augmented = (
            f"{note}, {AUGMENTED}: RandomFlip, RandomAffine, and a function for brightness and "
            "contrast, which TorchIO lacks; in the worker processes."
        )
        kept, changed = torchio_dataset(held, augments=False), torchio_dataset(held, augments=True)
        return [
            _loading(job, name, "torchio", f"{note}.", kept, num_batches=4, kind=Loader),
            _loading(
                job,
                f"{name}, augmented",
                "torchio",
                augmented,
                changed,
                num_batches=2,
                kind=Loader,
            ),
        ]

    def plain() -> list[Way]:
        note = "Rows of the same cache read through h5py by a DataLoader"
        widened = f"{note}, widened to float32, as is usual."
        each_time = (
            "The scans of a case read, normalised and one slice resized, for every slice, as the "
            "paper does it."
        )
        narrow, wide = (H5pyRows(job.cache_path, kind) for kind in (np.float16, np.float32))
        scans = NiftiSlices(job.cases, job.size)
        return [
            _loading(job, "h5py, float16", "plain", f"{note}, as stored.", narrow, num_batches=10),
            _loading(job, "h5py, float32", "plain", widened, wide, num_batches=10),
            _loading(job, "NIfTI each time", "plain", each_time, scans, num_batches=0.25),
        ]

    makers = {
        OURS: lambda: _ours(job, cache),
        "monai": monai,
        "torchio": torchio,
        "plain": plain,
    }
    benchmark = Benchmark(
        title="Slices a second that reach the trainer",
        unit="slice",
        shown="rate",
        settings={
            "batch size": job.batch_size,
            "slice": " x ".join(map(str, cache.shape[1:])),
        },
        remarks=[
            "Threads of brats, or worker processes of the others, as many as the settings say. "
            "The others keep slices in memory, or read a file in the page cache; their batches "
            "come as they collate them. What is augmented is compared with brats, augmented.",
        ],
    )
    measure(job, benchmark, wanted(job, makers), save, warm_up=True)


def _ours(job: Job, cache: Cache) -> list[Way]:
    world = World(rank=0, size=1, device=torch.device("cpu"))
    named = {
        "bare copy": (LIMIT, "As many bytes copied from memory to memory: the upper bound."),
        "feeding": (OURS, "Rows of the cache's memory map gathered into batches, float16."),
        "feeding + augmentation": (
            OURS,
            f"The same, {AUGMENTED}, batch by batch in the main process, which gives float32.",
        ),
    }
    names = {"feeding": OURS, "feeding + augmentation": f"{OURS}, augmented"}
    workloads = loader_workloads(
        [cache], world, batch_size=job.batch_size, num_steps=NUM_STEPS, resident="never"
    )
    return [
        Way(
            name=names.get(workload.name, workload.name),
            peer=named[workload.name][0],
            note=named[workload.name][1],
            run=workload.run,
            compared=names.get(workload.name, OURS),
        )
        for workload in workloads
    ]


def _loading(
    job: Job,
    name: str,
    peer: str,
    note: str,
    dataset: Dataset[Any],
    *,
    num_batches: float,
    kind: Callable[..., DataLoader[Any]] = DataLoader,
) -> Way:
    """A way that is a loader; less than one batch is shared by the workers."""
    num_slices = max(job.workers, int(num_batches * job.batch_size))
    loader = epoch_loader(
        dataset,
        num_slices=num_slices,
        batch_size=min(job.batch_size, -(-num_slices // job.workers)),
        workers=job.workers,
        kind=kind,
    )

    def run() -> int:
        done = 0
        for batch in loader:
            done += len(images_and_masks(batch)[0])
        return done

    compared = f"{OURS}, augmented" if name.endswith("augmented") else OURS
    return Way(name=name, peer=peer, note=note, run=run, compared=compared)
