"""The slices of a cache as the peers' data sets, with the paper's augmentation by each of them.

The peers keep slices in memory, decoded and prepared, which is the best that they can do.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import nibabel as nib
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

from brats_cache.format.reader import Cache
from brats_train.data.selection import RowSet
from peers.job import PeerCase

__all__ = [
    "H5pyRows",
    "HeldSlices",
    "NiftiSlices",
    "epoch_loader",
    "images_and_masks",
    "monai_dataset",
    "torchio_dataset",
]

DEGREES, FACTOR = 5, 0.6  # of the paper's augmentation, beside two flips of probability 0.5
TIMEOUT_SECONDS = 600  # of a batch


@dataclass(frozen=True, kw_only=True)
class HeldSlices:
    """Slices in memory.

    Attributes:
        images: (N, C, S, S) float32.
        masks: (N, 1, S, S) uint8.
    """

    images: np.ndarray
    masks: np.ndarray

    @classmethod
    def of(cls, cache: Cache, rows: RowSet) -> HeldSlices:
        """Reads rows of one cache."""
        return cls(
            images=cache.images[rows.row].astype(np.float32), masks=np.array(cache.masks[rows.row])
        )


def monai_dataset(held: HeldSlices, *, augments: bool) -> Dataset[Any]:
    """MONAI's CacheDataset, whose random transforms are applied to what it keeps.

    The augmentation is the paper's: both flips, 5 degrees, brightness and contrast by 60 %, a draw
    for each modality.
    """
    import monai.transforms as mt
    from monai.data import CacheDataset

    both = ("image", "mask")
    random = [
        mt.RandFlipd(both, prob=0.5, spatial_axis=0),
        mt.RandFlipd(both, prob=0.5, spatial_axis=1),
        mt.RandRotated(
            both,
            range_x=math.radians(DEGREES),
            prob=1,
            mode=("bilinear", "nearest"),
            padding_mode="zeros",
        ),
        mt.RandScaleIntensityd("image", factors=FACTOR, prob=1, channel_wise=True),
        mt.RandScaleIntensityFixedMeand("image", factors=FACTOR, prob=1, channel_wise=True),
    ]
    items = [
        {"image": image, "mask": mask} for image, mask in zip(held.images, held.masks, strict=True)
    ]
    steps = [mt.EnsureTyped(both), *(random if augments else ())]
    return CacheDataset(items, mt.Compose(steps), progress=False)


def torchio_dataset(held: HeldSlices, *, augments: bool) -> Dataset[Any]:
    """TorchIO's SubjectsDataset of slices, each a volume of depth 1.

    The augmentation is that of `monai_dataset`; TorchIO has neither brightness nor contrast, so
    both are one function for its Lambda.
    """
    import torchio as tio

    subjects = [
        tio.Subject(
            image=tio.ScalarImage(tensor=torch.from_numpy(image)[..., None]),
            mask=tio.LabelMap(tensor=torch.from_numpy(mask)[..., None]),
        )
        for image, mask in zip(held.images, held.masks, strict=True)
    ]
    random = tio.Compose(
        [
            tio.RandomFlip(axes=(0, 1), flip_probability=0.5),
            tio.RandomAffine(
                scales=0,
                degrees=(0, 0, 0, 0, -DEGREES, DEGREES),
                default_pad_value=0,
            ),
            tio.Lambda(_change_intensity, types_to_apply=[tio.INTENSITY]),
        ]
    )
    return tio.SubjectsDataset(subjects, transform=random if augments else None)


def _change_intensity(image: torch.Tensor) -> torch.Tensor:
    """Brightness and contrast of an image (C, X, Y, Z), as MONAI's two transforms define them."""
    brightness, contrast = 1 + FACTOR * (2 * torch.rand(2, len(image), 1, 1, 1) - 1)
    image = image * brightness
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return (image - mean) * contrast + mean


def epoch_loader(
    dataset: Dataset[Any],
    *,
    num_slices: int,
    batch_size: int,
    workers: int,
    kind: Callable[..., DataLoader[Any]] = DataLoader,
) -> DataLoader[Any]:
    """A loader of `num_slices` random slices in batches.

    Its workers persist between rounds, so that starting them is not timed, and are idle while other
    ways run.

    Args:
        dataset: What to draw from, with replacement.
        num_slices: Slices of an epoch.
        batch_size: Slices of a batch, which is one worker's work.
        workers: Processes.
        kind: DataLoader, or the peer's own subclass of it.
    """
    return kind(
        dataset,
        batch_size=batch_size,
        sampler=RandomSampler(dataset, replacement=True, num_samples=num_slices),  # type: ignore[arg-type]
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="spawn",  # a plain fork would inherit locks of threads here
        worker_init_fn=_one_thread,
        timeout=TIMEOUT_SECONDS,
    )


def images_and_masks(batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, C, S, S) and (B, 1, S, S) of a batch of any of these data sets."""
    images, masks = batch["image"], batch["mask"]
    if isinstance(images, dict):  # of TorchIO's subjects, volumes of depth 1
        images, masks = images["data"][..., 0], masks["data"][..., 0]
    return torch.as_tensor(images), torch.as_tensor(masks)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


class H5pyRows(Dataset[dict[str, Any]]):
    """One row of a cache an item, its image as `dtype`; each worker opens the file itself."""

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
    """The middle slice of a case an item, read from its files each time, as the paper does it."""

    def __init__(self, cases: tuple[PeerCase, ...], size: int) -> None:
        self.cases, self.size = cases, size

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """(C, S, S) float32, z-scored over the brain, and (1, S, S) uint8 labels."""
        case, side = self.cases[index], (self.size, self.size)
        channels = []
        for path in case.images.values():
            volume = nib.load(path).get_fdata(dtype=np.float32)
            brain = volume[volume != 0]
            plane = volume[:, :, volume.shape[2] // 2]
            plane = np.where(plane != 0, (plane - brain.mean()) / brain.std(), 0)
            channels.append(cv2.resize(plane, side, interpolation=cv2.INTER_LINEAR))
        labels = np.asarray(nib.load(case.mask).dataobj)
        plane = labels[:, :, labels.shape[2] // 2].astype(np.uint8)
        mask = cv2.resize(plane, side, interpolation=cv2.INTER_NEAREST_EXACT)
        return {"image": np.stack(channels).astype(np.float32), "mask": mask[None]}
