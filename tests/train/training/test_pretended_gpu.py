"""What a training step computes beside the network, on tensors that only claim to be on a GPU.

They have shapes, dtypes and a device, but no values. So an operation that mixes in a tensor of the
host is an error as it would be there, and so is reading a value back, which would make the host
wait. What needs the device itself is tested in tests/gpu.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from brats_train.data import augmentation as augment
from brats_train.data.augmentation import Parameters
from brats_train.data.targets import region_targets
from brats_train.training import losses
from brats_train.training.losses import LOSS_NAMES, LossConfig
from brats_train.training.validation import sums_of

GPU = torch.device("cuda", 0)
BATCH, CHANNELS, SIZE = 6, 4, 32


@pytest.fixture(autouse=True)
def pretended() -> Iterator[None]:
    with FakeTensorMode():
        yield


def test_reading_a_value_back_is_an_error() -> None:
    with pytest.raises(DataDependentOutputException):
        torch.zeros(1, device=GPU).item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_augmentation_stays_on_the_device(dtype: torch.dtype) -> None:
    images = torch.zeros(BATCH, CHANNELS, SIZE, SIZE, dtype=dtype, device=GPU)
    masks = torch.zeros(BATCH, 1, SIZE, SIZE, dtype=torch.uint8, device=GPU)
    yes = torch.ones(BATCH, dtype=torch.bool, device=GPU)
    one = torch.ones(BATCH, device=GPU)
    each = torch.ones(BATCH, CHANNELS, device=GPU)
    paper = Parameters(hflip=yes, vflip=yes, angle=one, brightness=each, contrast=each)
    everything = replace(
        paper,
        saturation=one,
        zoom=one,
        gamma=each,
        bias=torch.ones(BATCH, CHANNELS, 5, device=GPU),
        blur=one,
        kept=each,
        shift=torch.ones(BATCH, 2, device=GPU),
        window=SIZE // 2,
    )
    without_rotation = Parameters(hflip=yes, vflip=yes, brightness=each)
    for parameters in (paper, everything, without_rotation):
        moved, moved_masks = augment.apply(images, masks, parameters)
        side = parameters.window or SIZE
        assert (moved.device, moved.dtype) == (GPU, torch.float32)
        assert moved.shape == (BATCH, CHANNELS, side, side)
        assert (moved_masks.device, moved_masks.dtype) == (GPU, torch.uint8)


@pytest.mark.parametrize("overlap", ["sample", "batch"])
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_losses_and_sums_stay_on_the_device(name: str, overlap: str) -> None:
    masks = torch.zeros(BATCH, 1, SIZE, SIZE, dtype=torch.uint8, device=GPU)
    targets = region_targets(masks, ("wt", "tc", "et"))
    logits = torch.zeros(BATCH, 3, SIZE, SIZE, device=GPU)
    terms = losses.compute(LossConfig(name=name, overlap=overlap), logits, targets)
    assert sums_of(terms, logits, targets).device == GPU
