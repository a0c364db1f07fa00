"""Whether the disk has room for the checkpoints of a run, looked at before its first step."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from brats_cache.common.errors import BratsError, printable
from brats_cache.common.text import human_bytes
from brats_train.training.ema import MovingAverage
from brats_train.training.run_dir import RunDir
from brats_train.training.train_step import TrainStep

__all__ = ["check_disk_space", "checkpoint_bytes"]

_MOMENTS = {"adamw": 2, "adam": 2, "sgd": 1}  # that an optimizer keeps of each parameter


def checkpoint_bytes(
    model: nn.Module, ema: MovingAverage | None, optimizer: str
) -> tuple[int, int]:
    """Bytes of the tensors in last.pt and in best.pt.

    Args:
        model: The network.
        ema: Its moving average, None for none.
        optimizer: Of the recipe.
    """
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    moments = _MOMENTS[optimizer] * sum(one.nbytes for one in model.parameters())
    return weights * (1 if ema is None else 2) + moments, weights


def check_disk_space(run: RunDir, train_step: TrainStep, optimizer: str) -> None:
    """Checks that the checkpoints of a run fit on the disk, and beside last.pt the one after it.

    Args:
        run: Its directory, which need not exist; checkpoints in it will be replaced.
        train_step: Its model and moving average.
        optimizer: Of the recipe.

    Raises:
        BratsError: They do not fit.
    """
    last, best = checkpoint_bytes(train_step.model, train_step.ema, optimizer)
    needed = 2 * last + best - _size(run.last) - _size(run.best)
    path = run.path.absolute()
    free = shutil.disk_usage(next(one for one in (path, *path.parents) if one.is_dir())).free
    if free < needed:
        raise BratsError(
            f"{printable(run.path)}: its checkpoints need {human_bytes(needed)}, the disk has "
            f"{human_bytes(free)} free. Free some, or choose another --run-dir."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
