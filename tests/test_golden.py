"""Changes that should change nothing: the bytes of a cache and the first losses of a training.

`golden.json` beside this file holds what they were. A change that is meant to alter them writes
them anew, and says so in its commit: `python -m tests.test_golden`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from brats_cache.api import build_cache
from brats_cache.synthetic.write_phantom import write_phantom
from brats_train.runtime.distributed import World
from brats_train.training.recipe import apply_settings, load_recipe
from brats_train.training.run_dir import RunDir
from brats_train.training.state import TrainJob
from brats_train.training.trainer import train

GOLDEN = Path(__file__).with_name("golden.json")
SETTINGS = (
    *("model.encoder=resnet18", "encoder_weights=none", "rows=tumor", "amp=off"),
    *("epochs=5", "batch_size=14", "lr=1e-3"),
)


def make_golden(folder: Path) -> dict[str, Any]:
    """The checksum of a small cache, and the losses of ten steps (two an epoch) on it."""
    write_phantom(
        folder / "scans", num_cases=5, num_test_cases=1, seed=7, shape=(48, 56, 20), workers=1
    )
    cache = build_cache(folder / "scans", folder / "cache.h5", size=64, workers=1, seed=3)
    # What the phantom is made of goes through libraries' arithmetic, and the paths of the scans
    # into the tables: the rows are what must stay.
    digest = hashlib.sha256(cache.images.tobytes() + cache.masks.tobytes()).hexdigest()
    job = TrainJob(
        cache_paths=(cache.path,),
        recipe_name="golden",
        recipe=apply_settings(load_recipe("paper"), SETTINGS),
        deterministic=True,
    )
    alone = World(rank=0, size=1, device=torch.device("cpu"))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums are rounded otherwise on more
    try:
        train(job, alone, RunDir(folder / "run"), resume=False, log=lambda text: None)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(num_threads)
    rows = RunDir(folder / "run").read_metrics()
    return {
        "cache_rows_sha256": digest,
        "train_loss": [row["train_loss"] for row in rows],
    }


def test_nothing_has_changed_that_should_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected, found = json.loads(GOLDEN.read_text()), make_golden(tmp_path)
    assert found["cache_rows_sha256"] == expected["cache_rows_sha256"]
    # Processors differ in the last digits of a sum, which AdamW enlarges where gradients vanish.
    assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=5e-3)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps(make_golden(Path(folder)), indent=2) + "\n")
