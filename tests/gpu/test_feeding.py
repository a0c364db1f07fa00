"""Rows on their way to a GPU: whole and in order, however busy the device is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from brats_cache.format.reader import Cache
from brats_train.data.feeders import make_feeder
from brats_train.data.loader import Batches
from brats_train.data.sampler import Sampler
from brats_train.data.selection import select_rows
from brats_train.models import checkpoint
from brats_train.runtime.distributed import World
from brats_train.training.checkpoint_writer import CheckpointWriter
from tests.gpu.conftest import MakeTrainStep


@pytest.mark.parametrize("resident", ["never", "always"])
def test_rows_arrive_whole_while_the_gpu_is_busy(
    cache: Cache, device: torch.device, resident: str
) -> None:
    """The ring is refilled while copies and kernels are still under way: no row may be overwritten
    before it has arrived, nor memory be given away that a kernel still reads."""
    rows = select_rows([cache], "train", "all")
    feeder = make_feeder([cache], rows, largest=8, device=device, resident=resident)
    world = World(rank=0, size=1, device=device)
    batches = Batches(feeder, Sampler.uniform(len(rows), seed=3), batch_size=8, world=world)
    sums = []
    for batch in batches.epoch(0):
        torch.cuda._sleep(20_000_000)  # some ten milliseconds: the host runs far ahead
        sums.append((batch.images.double().sum((1, 2, 3)), batch.masks.long().sum((1, 2, 3))))
    order = rows.row[Sampler.uniform(len(rows), seed=3).order(0)]
    images, masks = (torch.cat(parts).cpu().numpy() for parts in zip(*sums, strict=True))
    expected = cache.images[order].astype(np.float64).sum((1, 2, 3))
    np.testing.assert_allclose(images, expected, rtol=1e-9, atol=1e-6)
    np.testing.assert_array_equal(masks, cache.masks[order].sum((1, 2, 3), dtype=np.int64))


def test_a_snapshot_is_of_the_moment_it_was_asked_for(
    make_train_step: MakeTrainStep, batches_of: Callable[..., Batches], tmp_path: Path
) -> None:
    """A thread writes it while training goes on."""
    train_step = make_train_step("batch_size=16")
    before = {name: value.clone() for name, value in train_step.model.state_dict().items()}
    path = tmp_path / "snapshot.pt"
    totals = torch.zeros(4, dtype=torch.float64, device=train_step.world.device)
    with CheckpointWriter() as saver:
        torch.cuda._sleep(50_000_000)
        saver.submit(path, checkpoint.pack(train_step.segmenter, train_step.model.state_dict()))
        for batch in batches_of(16).epoch(0):
            train_step(batch, 0, 1e-3, totals)
    for name, value in checkpoint.load(path)["model"].items():
        assert torch.equal(value, before[name].cpu()), name
