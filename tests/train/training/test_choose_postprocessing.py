"""Choosing post-processing at the end of a training needs the truth, which is looked for before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch

from brats_cache.api import build_cache
from brats_cache.common.errors import BratsError
from brats_cache.synthetic.write_phantom import write_phantom
from brats_train.runtime.distributed import World
from brats_train.training.folds import train_folds
from brats_train.training.recipe import Recipe, apply_settings
from brats_train.training.run_dir import RunDir
from brats_train.training.state import TrainJob
from brats_train.training.trainer import train
from tests.commands import SMALL_ENCODER

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@pytest.mark.parametrize("fold", [None, "all"])
def test_scans_that_are_gone_are_told_before_the_first_step(
    fold: Literal["all"] | None, tmp_path: Path
) -> None:
    """Slices of 48 pixels in a cache of 32 do not give back the truth."""
    scans, path, run = tmp_path / "scans", tmp_path / "cache.h5", RunDir(tmp_path / "run")
    write_phantom(scans, num_cases=4, shape=(48, 48, 8))
    build_cache([scans], path, size=32, folds=2)
    shutil.rmtree(scans)
    settings = [f"model.encoder={SMALL_ENCODER}", "encoder_weights=none", "choose=true"]
    recipe = apply_settings(Recipe(), settings)
    job = TrainJob(cache_paths=(path,), recipe_name="test", recipe=recipe, fold=fold)
    train_it = train_folds if fold else train
    with pytest.raises(BratsError, match=r"is gone.*Put it back.*--set choose=false"):
        train_it(job, ALONE, run, resume=False, log=print)
    assert not run.path.exists()
