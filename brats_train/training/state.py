"""What a run was asked to do, where it stands, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brats_train.runtime.distributed import World
from brats_train.training.recipe import Recipe
from brats_train.training.validation import NAMES

__all__ = ["Finished", "Position", "StepAction", "TrainJob"]


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What `brats train` was asked to do, beside the recipe.

    fold         validates in place of the cache's own split; None for that
    max_minutes  training ends, judged and saved, before it would take longer; 0 for no limit
    save_minutes between two writings of last.pt
    micro_batch  "auto", or the samples a rank computes at once
    resident     see `loader.make_feeder`
    init_from    a checkpoint to take the model's weights from, instead of encoder weights
    trackers     of `tracking.TRACKERS`
    """

    cache_paths: tuple[Path, ...]
    recipe_name: str
    recipe: Recipe
    fold: int | None = None
    max_minutes: float = 0.0
    save_minutes: float = 5.0
    micro_batch: str = "auto"
    resident: str = "auto"
    init_from: Path | None = None
    compile: bool = False
    deterministic: bool = False
    trackers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How training ended. `is_resumable`: it was interrupted between two steps."""

    reason: str
    best_epoch: int
    is_resumable: bool


@dataclass(kw_only=True)
class Position:
    """Where a run stands, and what it knows of its way: all that changes but tensors of the model.

    totals       (4,) float64 sums of `NAMES` over this rank's samples of the running epoch
    best         the best value of the recipe's criterion, less being better
    """

    epoch: int = 0
    step: int = 0
    best: float = math.inf
    best_epoch: int = 0
    totals: Tensor = field(default_factory=lambda: torch.zeros(len(NAMES), dtype=torch.float64))

    def pack(self, world: World) -> dict[str, Any]:
        """Plain values for a checkpoint; every rank takes part, each with its own sums."""
        totals = world.all_gather(self.totals.tolist())
        return {**vars(self), "totals": totals}

    @classmethod
    def unpack(cls, held: Mapping[str, Any], world: World) -> Position:
        """Undoes `pack`. A rank takes its own sums where as many ranks go on, else the main rank
        takes all. Raises KeyError, TypeError or ValueError for what `pack` did not make."""
        sums = torch.tensor(held["totals"], dtype=torch.float64, device=world.device)
        if len(sums) == world.size:
            totals = sums[world.rank]
        else:
            totals = sums.sum(dim=0) if world.is_main else torch.zeros_like(sums[0])
        return cls(**{**held, "totals": totals})


class StepAction(IntEnum):
    """What to do after a step. Ranks take the greatest of what they propose, so that all agree."""

    CONTINUE = 0
    CHECKPOINT = 1
    STOP = 2
    INTERRUPT = 3
    ABORT = 4
