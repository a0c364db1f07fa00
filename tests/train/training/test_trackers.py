"""The experiment trackers of a run hold what metrics.csv holds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from brats_cache.common.errors import BratsError
from brats_train.runtime.distributed import World
from brats_train.training.recipe import Recipe
from brats_train.training.run_dir import RunDir
from brats_train.training.trackers import Trackers, check_trackers

MAIN = World(rank=0, size=1, device=torch.device("cpu"))
ROWS = [{"epoch": 1, "train_loss": 0.5, "lr": 1e-4}, {"epoch": 2, "train_loss": 0.25, "lr": 1e-4}]


def log_to(name: str, folder: Path, world: World = MAIN) -> None:
    with Trackers.open([name], RunDir(folder / "run"), world, Recipe()) as trackers:
        for row in ROWS:
            trackers.log(row)


def test_tensorboard_holds_every_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_to("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    held = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert held == [(1, 0.5), (2, 0.25)]


def test_mlflow_holds_every_epoch_and_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    log_to("mlflow", tmp_path)
    (run,) = mlflow.search_runs(output_format="list")
    assert run.info.run_name == "run"
    assert run.data.metrics["train_loss"] == 0.25
    assert run.data.params["loss.name"] == "bce+iou"


def test_only_the_main_rank_records(tmp_path: Path) -> None:
    log_to("tensorboard", tmp_path, World(rank=1, size=2, device=torch.device("cpu")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_extra_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in [name, *(m for m in sys.modules if m.startswith("torch.utils.tensorboard"))]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BratsError, match=rf"pip install -e '.\[{name}\]'"):
        log_to(name, tmp_path)
    with pytest.raises(BratsError, match=rf"pip install -e '.\[{name}\]'"):
        check_trackers([name])  # before a run directory is made
