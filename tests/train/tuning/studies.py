"""Studies without training, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brats_train.training.metrics_file import METRIC_COLUMNS
from brats_train.training.recipe import Recipe, apply_settings, recipe_to_dict
from brats_train.tuning.space import Space, load_space
from brats_train.tuning.study import Study

BASE = apply_settings(Recipe(), ["epochs=10", "encoder_weights=none"])
SPACE = """
optimizer = ["adamw", "sgd"]
lr = { low = 1e-5, high = 1e-2, log = true }
batch_size = { low = 4, high = 64 }
"""


def make_space(folder: Path, text: str = SPACE, base: Recipe = BASE) -> Space:
    path = folder / "space.toml"
    path.write_text(text)
    return load_space(path, base)


def open_study(
    folder: Path, *, storage: str | None = None, settings: Mapping[str, Any] | None = None
) -> Study:
    """The study `folder / "study"` as another process opens it."""
    settings = settings or {"recipe": recipe_to_dict(BASE)}
    return Study(folder / "study", storage, make_space(folder), BASE, settings)


def row_of(epoch: int, iou: float) -> dict[str, float]:
    """A row of metrics.csv."""
    return dict.fromkeys(METRIC_COLUMNS, 0.5) | {
        "epoch": epoch,
        "val_iou": iou,
        "val_iou_loss": 1 - iou,
    }


def finish(study: Study, value: Callable[[Mapping[str, Any]], float], num_wanted: int) -> None:
    """Runs trials of a function of their parameters, each with two epochs."""
    with study.worker() as worker:
        while (trial := worker.claim(num_wanted)) is not None:
            for epoch in (1, 2):
                trial.report(value(trial.params) * epoch / 2, epoch)
            study.optuna.tell(trial, value(trial.params))
