"""Benchmark of brats' data loading against three common ways, run by scripts/bench_loader_peers.

    feeding                rows of the cache, streamed as float16
    feeding + augmentation the same, with the paper's augmentation on the CPU, which gives float32
    h5py + DataLoader      the same rows, read through h5py and widened to float32, as is usual, by
                           two worker processes; and for comparison left at float16
    MONAI CacheDataset     the cases' middle slices kept in memory, two workers that augment them
    NIfTI each time        scans read, normalised and resized for every slice, as the paper does it

Synthetic cases of full size are made in a temporary folder (1.4 GB for 16).
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import monai.transforms as mt
import nibabel as nib
import numpy as np
import torch
from monai.data import CacheDataset
from torch.utils.data import DataLoader, Dataset, RandomSampler

from brats_cache.common.process import keep_freed_memory
from brats_train.benchmarks.harness import (
    BenchmarkReport,
    Workload,
    build_phantom_cache,
    measure_in_turn,
    phantom_scans,
)
from brats_train.benchmarks.loader import loader_workloads
from brats_train.runtime.distributed import World

BATCH = 64
NUM_WORKERS = 2
SIZE = 256
MODALITIES = ("t1", "t1ce", "t2", "flair")
TARGETS = (  # ours, theirs, and the least ratio of throughput
    ("feeding", "bare copy", 0.35),
    ("feeding", "h5py + DataLoader", 10.0),
    ("feeding + augmentation", "MONAI CacheDataset", 5.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=16, help="synthetic cases (default: 16)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default: 5)")
    parser.add_argument("--json", action="store_true", help="every round on standard output")
    arguments = parser.parse_args()
    report = compare(arguments.cases, arguments.rounds)
    device = torch.device("cpu")
    print(
        json.dumps(report.as_json(device), indent=2) if arguments.json else report.as_text(device)
    )


def compare(num_cases: int, num_rounds: int) -> BenchmarkReport:
    device = torch.device("cpu")
    keep_freed_memory()  # as brats train does
    with phantom_scans(num_cases=num_cases, shape=(240, 240, 155)) as folder:
        cache = build_phantom_cache(folder, size=SIZE, val_fraction=0)
        cases = sorted(path.parent for path in (folder / "scans").rglob("*_seg.nii"))
        workloads = loader_workloads(
            [cache],
            World(rank=0, size=1, device=device),
            batch_size=BATCH,
            num_steps=20,
            resident="never",
        )
        for name, dataset, num in (
            ("h5py + DataLoader", H5pyRows(cache.path, np.float32), 10 * BATCH),
            ("h5py + DataLoader, float16", H5pyRows(cache.path, np.float16), 10 * BATCH),
            ("MONAI CacheDataset", monai_slices(cases), 6 * BATCH),
            ("NIfTI each time", NiftiSlices(cases), BATCH // 4),
        ):
            workloads.append(Workload(name=name, run=one_epoch(dataset, num)))
        throughput = measure_in_turn(workloads, num_rounds=num_rounds, device=device)
    return BenchmarkReport(
        name="loader against its peers",
        unit="slices",
        settings={"batch size": BATCH, "cases": num_cases, "workers of a peer": NUM_WORKERS},
        throughput=throughput,
        ratios=[
            *((ours, theirs) for ours, theirs, _ in TARGETS),
            ("feeding", "h5py + DataLoader, float16"),
        ],
        figures={
            f"{ours}: {least:g} of {theirs}": "met"
            if throughput.ratio(ours, theirs) >= least
            else "missed"
            for ours, theirs, least in TARGETS
        },
    )


def one_epoch(dataset: Dataset[Any], num: int) -> Callable[[], int]:
    """A round of `num` items in shuffled batches.

    The workers persist between rounds, so that starting them is not timed, and are idle while other
    workloads run.
    """
    loader = DataLoader(
        dataset,
        batch_size=min(BATCH, num // NUM_WORKERS),  # a batch is one worker's
        sampler=RandomSampler(dataset, replacement=True, num_samples=num),
        num_workers=NUM_WORKERS,
        persistent_workers=True,
        multiprocessing_context="forkserver",  # a plain fork would inherit locks of threads here
        worker_init_fn=one_thread,
    )

    def run() -> int:
        done = 0
        for batch in loader:
            done += len(batch["image"])
        return done

    return run


def one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


class H5pyRows(Dataset[dict[str, Any]]):
    """One row of the cache an item, its image as `dtype`; each worker opens the file itself."""

    def __init__(self, path: Path, dtype: type[np.floating]) -> None:
        self.path, self.dtype, self.file = path, dtype, None
        with h5py.File(path, "r") as file:
            self.num_rows = len(file["images"])

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        image = self.file["images"][index].astype(self.dtype, copy=False)
        return {"image": image, "mask": self.file["masks"][index]}


class NiftiSlices(Dataset[dict[str, Any]]):
    """The middle slice of a case an item, read from its five files each time."""

    def __init__(self, cases: Sequence[Path]) -> None:
        self.cases = list(cases)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return middle_slice(self.cases[index])


def middle_slice(case: Path) -> dict[str, Any]:
    """(4, 256, 256) float32 z-scored over the brain and (1, 256, 256) uint8 labels."""
    channels = []
    for modality in MODALITIES:
        volume = nib.load(case / f"{case.name}_{modality}.nii").get_fdata(dtype=np.float32)
        brain = volume[volume != 0]
        plane = volume[:, :, volume.shape[2] // 2]
        plane = np.where(plane != 0, (plane - brain.mean()) / brain.std(), 0)
        channels.append(cv2.resize(plane, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR))
    labels = np.asarray(nib.load(case / f"{case.name}_seg.nii").dataobj)
    plane = labels[:, :, labels.shape[2] // 2].astype(np.uint8)
    mask = cv2.resize(plane, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST_EXACT)
    return {"image": np.stack(channels).astype(np.float32), "mask": mask[None]}


def monai_slices(cases: Sequence[Path]) -> Dataset[Any]:
    """MONAI's CacheDataset: deterministic transforms cached in memory, random ones after them.

    The random ones are the paper's: both flips, 5 degrees, brightness and contrast by 60 %.
    """
    both = ("image", "mask")
    transforms = mt.Compose(
        [
            mt.Lambda(middle_slice),
            mt.EnsureTyped(both),
            mt.RandFlipd(both, prob=0.5, spatial_axis=0),
            mt.RandFlipd(both, prob=0.5, spatial_axis=1),
            mt.RandRotated(
                both,
                range_x=np.deg2rad(5),
                prob=1,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            mt.RandScaleIntensityd("image", factors=0.6, prob=1, channel_wise=True),
            mt.RandScaleIntensityFixedMeand("image", factors=0.6, prob=1, channel_wise=True),
        ]
    )
    return CacheDataset(list(cases), transforms, progress=False)


if __name__ == "__main__":
    main()
