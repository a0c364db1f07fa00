"""config.json of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brats_train.cli.options import open_run_caches
from brats_train.cli.train import make_job, train
from brats_train.data.selection import select_rows
from brats_train.report.page import make_page
from brats_train.training.recipe import load_recipe, recipe_from_dict, recipe_to_dict
from brats_train.training.run_dir import RunDir
from brats_train.training.trained_on import trained_on
from tests.hostile.caches import small_cache
from tests.hostile.mutations import Files, spoil_json

CONFIG: dict[str, Any] = {
    "recipe_name": "strong",
    "recipe": recipe_to_dict(load_recipe("strong")),
    "caches": [{"path": "../inner/cache.h5", "fingerprint": "0" * 32}],
    "fold": None,
    "init_from": None,
    "deterministic": False,
    "max_minutes": 0.0,
    "save_minutes": 5.0,
    "resident": "auto",
    "compile": False,
    "trackers": [],
    "micro_batch": 2,
    "amp": "off",
    "torchrun_id": None,
    "launcher": "host 1 2",
    "versions": {"torch": "2.11"},
    "device": "CPU",
    "world_size": 1,
    "encoder_weights_from": "none (random initialisation)",
    "num_train_rows": 5,
    "num_val_rows": 5,
}


def make(rng: np.random.Generator) -> Files:
    """A run directory with a cache, but without checkpoints."""
    return {"config.json": spoil_json(CONFIG, rng), "cache.h5": small_cache()}


def read(folder: Path) -> None:
    """What every command takes from the file: the recipe, the job, the caches, the page's text."""
    run = RunDir.existing(folder)
    config = run.read_config()
    recipe = recipe_from_dict(config["recipe"])
    assert recipe_to_dict(recipe) == config["recipe"]
    options = train.make_context("train", ["--resume"]).params
    job = make_job(options, config)
    assert job.recipe == recipe
    assert make_page("a run", config, [], None, None, [], [], {})
    trained = trained_on(folder)
    for cache in open_run_caches(trained, ()):
        select_rows([cache], "val", trained.rows, trained.fold)
    run.check_same(CONFIG)
