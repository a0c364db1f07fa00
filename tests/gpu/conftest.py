"""Tests that need a CUDA device: skipped, saying so, where there is none."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from brats_cache.format.reader import Cache, open_cache
from brats_cache.synthetic.write_phantom import write_phantom
from brats_train.data.feeders import make_feeder
from brats_train.data.loader import Batches
from brats_train.data.sampler import Sampler
from brats_train.data.selection import select_rows
from brats_train.runtime.compile import CompileMode
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import configure_torch
from brats_train.training.recipe import Recipe, apply_settings
from brats_train.training.train_step import TrainStep
from tests.commands import run_brats

MakeTrainStep = Callable[..., TrainStep]


@pytest.fixture(scope="session")
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _alone_on_the_device(device: torch.device) -> Iterator[None]:
    """One test at a time, whatever the number of pytest's processes: they share the memory."""
    name = f"brats-gpu-tests-{os.getuid()}.lock"
    with (Path(tempfile.gettempdir()) / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def cache(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """192 training rows of 4 x 256 x 256, enough for the paper's batch."""
    folder = tmp_path_factory.mktemp("gpu")
    write_phantom(folder / "scans", num_cases=8, seed=5, shape=(64, 64, 24), workers=1)
    path = folder / "phantom.h5"
    run_brats(
        *("build-cache", folder / "scans", "--out", path, "--slices", "all"),
        *("--val-fraction", 0, "--workers", 2),
    )
    return open_cache(path)


@pytest.fixture
def make_train_step(cache: Cache, device: torch.device) -> MakeTrainStep:
    """What learns by the paper's recipe with the given changes, from random weights."""

    def make(
        *settings: str, micro_batch: str = "auto", compile_mode: CompileMode = False
    ) -> TrainStep:
        recipe = apply_settings(Recipe(), ["encoder_weights=none", *settings])
        configure_torch(device, deterministic=False)
        train_step = TrainStep(
            recipe,
            [cache],
            World(rank=0, size=1, device=device),
            largest=recipe.batch_size,
            least=recipe.batch_size,
            micro_batch=micro_batch,
            init_from=None,
            compile_mode=compile_mode,
        )
        train_step.model.train()
        return train_step

    return make


@pytest.fixture
def batches_of(cache: Cache, device: torch.device) -> Callable[..., Batches]:
    """All rows of the cache in batches."""

    def make(batch_size: int, resident: str = "never") -> Batches:
        rows = select_rows([cache], "train", "all")
        feeder = make_feeder([cache], rows, largest=batch_size, device=device, resident=resident)
        world = World(rank=0, size=1, device=device)
        return Batches(
            feeder, Sampler.uniform(len(rows), seed=0), batch_size=batch_size, world=world
        )

    return make
