"""MONAI's 2-D U-Net after its tutorials, trained on the cases of all folds but one:

    python -m peers.train_monai JOB.json FOLD

The network and its rate are those of 2d_segmentation/torch/unet_training_dict.py, slices are drawn
from volumes as in modules/2d_slices_from_3d_sampling.ipynb, and normalisation, flips, intensities,
loss and annealing are those of 3d_segmentation/brats_segmentation_3d.ipynb, except that Dice is of
the whole batch: of a slice without tumour alone it would have no gradient. The rate follows the
clock, so that it ends at zero with the minutes, which begin once all is imported and hold the
loading of the scans. The last weights predict.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai import transforms as mt
from monai.data import CacheDataset, DataLoader, Dataset, list_data_collate
from monai.inferers import SliceInferer
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.utils import set_determinism

from brats_cache.common.process import usable_cores
from brats_train.runtime.precision import autocast, choose_amp
from peers.folds import FoldsJob, publish, train_from_command_line
from peers.job import PeerCase

CPU = torch.device("cpu")
RATE = 1e-3
VOLUMES, SLICES = 4, 4  # of a step: 16 slices, as `strong` takes
BOTH = ("image", "mask")


def main() -> None:
    started = time.monotonic()
    job, fold = train_from_command_line()
    set_determinism(seed=0)
    torch.set_num_threads(usable_cores())
    prepare = preparation(job)
    model = UNet(
        spatial_dims=2,
        in_channels=len(job.cases[0].images),
        out_channels=len(job.regions),
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    )
    volumes = CacheDataset(_items(job.seen(fold)), prepare, progress=False)
    train(model, batches(volumes, job), seconds=lambda: time.monotonic() - started, job=job)
    model.eval()
    for case in job.unseen(fold):
        predict(model, prepare, case, job)


def preparation(job: FoldsJob) -> Any:
    """What is done to a volume once: channels (C, X, Y, Z), each with mean 0 and deviation 1."""
    names = list(job.cases[0].images)

    def regions_of(mask: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.isin(mask, torch.tensor(v)) for v in job.regions.values()]).float()

    return mt.Compose(
        [
            mt.LoadImaged(keys=[*names, "mask"]),
            mt.EnsureChannelFirstd(keys=[*names, "mask"]),
            mt.ConcatItemsd(keys=names, name="image"),
            mt.DeleteItemsd(keys=names),
            mt.NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
            mt.Lambdad(keys="mask", func=regions_of),
            mt.EnsureTyped(keys=BOTH),
        ]
    )


def batches(volumes: CacheDataset, job: FoldsJob) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Slices without end: (B, C, X, Y) images and (B, R, X, Y) masks, half of them with tumour."""
    random = mt.Compose(
        [
            mt.RandCropByPosNegLabeld(
                keys=BOTH, label_key="mask", spatial_size=[-1, -1, 1], num_samples=SLICES
            ),
            mt.SqueezeDimd(keys=BOTH, dim=-1),
            mt.RandFlipd(keys=BOTH, prob=0.5, spatial_axis=0),
            mt.RandFlipd(keys=BOTH, prob=0.5, spatial_axis=1),
            mt.RandScaleIntensityd(keys="image", factors=0.1, prob=1.0),
            mt.RandShiftIntensityd(keys="image", offsets=0.1, prob=1.0),
            mt.DivisiblePadd(keys=BOTH, k=16),
        ]
    )
    sizes = {tuple(volumes[index]["image"].shape[1:3]) for index in range(len(volumes))}
    largest = tuple(map(max, zip(*sizes, strict=True)))
    if len(sizes) > 1:  # slices of one batch need one size
        random = mt.Compose([random, mt.ResizeWithPadOrCropd(keys=BOTH, spatial_size=largest)])
    loader = DataLoader(
        Dataset(volumes, random),
        batch_size=min(VOLUMES, len(volumes)),
        shuffle=True,
        num_workers=0,
        collate_fn=list_data_collate,
    )
    while True:
        for batch in loader:
            yield batch["image"].as_tensor(), batch["mask"].as_tensor()


def train(
    model: UNet,
    pairs: Iterator[tuple[torch.Tensor, torch.Tensor]],
    *,
    seconds: Any,
    job: FoldsJob,
) -> None:
    """Trains until the minutes are over; the rate is a cosine of the time that has passed."""
    amp = choose_amp("auto", CPU)
    loss_of = DiceLoss(smooth_nr=0, smooth_dr=1e-5, squared_pred=True, sigmoid=True, batch=True)
    optimizer = torch.optim.Adam(model.parameters(), RATE, weight_decay=1e-5)
    model.train()
    num_steps = 0
    while (share := seconds() / (60 * job.minutes)) < 1:
        optimizer.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * share)) / 2
        images, masks = next(pairs)
        optimizer.zero_grad()
        with autocast(amp, CPU):
            logits = model(images)
        loss = loss_of(logits.float(), masks)
        loss.backward()
        optimizer.step()
        num_steps += 1
    print(f"monai: {num_steps} steps, last loss {float(loss):.3f}", flush=True)


def predict(model: UNet, prepare: Any, case: PeerCase, job: FoldsJob) -> None:
    """Writes the mask of a case, on the grid of its segmentation."""
    image = prepare(_item(case))["image"].as_tensor()
    width, height = image.shape[1:3]
    padded = mt.DivisiblePad(k=(16, 16, 1), method="end")(image).as_tensor()
    infer = SliceInferer(roi_size=padded.shape[1:3], spatial_dim=2, sw_batch_size=8)
    with torch.inference_mode():
        found = infer(padded[None], model)[0, :, :width, :height] > 0  # probability above 0.5
    source = nib.load(case.mask)
    labels = np.zeros(source.shape[:3], np.uint8)
    for region, mask in zip(job.regions, found.numpy(), strict=True):
        labels[mask] = job.written[region]
    made = job.folder / f"{case.id}.nii.gz"
    made.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, source.affine, source.header, dtype=np.uint8), made)
    publish(made, job, case)


def _items(cases: Sequence[PeerCase]) -> list[Mapping[str, str]]:
    return [_item(case) for case in cases]


def _item(case: PeerCase) -> Mapping[str, str]:
    return case.images | {"mask": case.mask}


if __name__ == "__main__":
    main()
