"""What a training run is asked to do, where it stands, and what it may do after a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brats_train.data.selection import Fold
from brats_train.runtime.compile import CompileMode
from brats_train.runtime.distributed import World
from brats_train.training.recipe import Recipe
from brats_train.training.validation import NAMES

__all__ = ["Finished", "Progress", "StepAction", "TrainJob"]


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What `brats train` was asked to do, beside the recipe.

    Attributes:
        cache_paths: The caches, read as one.
        recipe_name: As on the command line, for config.json.
        recipe: How to train.
        fold: Validates in place of the cache's own split; None for that; "all" trains a model for
            each fold, see `folds`.
        max_minutes: Training ends, validated and saved, before it would take longer; 0 for no
            limit.
        save_minutes: Between two writings of last.pt.
        micro_batch: "auto", or the samples a rank computes at once.
        resident: See `data.feeders.make_feeder`.
        init_from: A model to take the weights from, instead of encoder weights, see
            `initial_state.initial_model`.
        compile: Whether and how to compile the model with torch.compile.
        deterministic: Equal runs give equal bytes.
        trackers: Of `trackers.TRACKERS`.
        classify: Source of the labels of cases that a second head learns, see
            `data.case_labels.label_cases`; None for no second head.
        labels: Label by case; empty until the source has been read.
        allow_no_tumor: Train even where no training slice holds a tumour.
    """

    cache_paths: tuple[Path, ...]
    recipe_name: str
    recipe: Recipe
    fold: Fold = None
    max_minutes: float = 0.0
    save_minutes: float = 5.0
    micro_batch: str = "auto"
    resident: str = "auto"
    init_from: Path | None = None
    compile: CompileMode = False
    deterministic: bool = False
    trackers: tuple[str, ...] = ()
    classify: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    allow_no_tumor: bool = False


@dataclass(frozen=True)
class Finished:
    """How training ended.

    Attributes:
        reason: In words.
        best_epoch: From 1; 0 where no epoch was completed.
        is_resumable: It was interrupted between two steps.
        is_validated: There are validation cases, which can be scored.
    """

    reason: str
    best_epoch: int
    is_resumable: bool
    is_validated: bool = True


@dataclass(kw_only=True)
class Progress:
    """Where a run stands: all that changes but the tensors of model and optimizer.

    Attributes:
        epoch: The running epoch, from 0.
        step: Steps taken in it.
        steps_taken: Steps taken by the run.
        schedule: First step of the learning-rate schedule and the step at which it ends.
        schedule_is_final: False while the end is to be fitted to --max-minutes.
        steps_per_epoch: Fewer than hold all slices where a time limit cuts epochs short.
        num_choice_cases: Validation cases by which post-processing is chosen, fewer than all where
            a time limit allows no more; None for all.
        seconds: Spent by earlier processes of this run.
        best: The best value of the recipe's criterion, less being better.
        best_epoch: The epoch of that value, -1 for none.
        totals: (4,) float64 sums of `NAMES` over this rank's samples of the running epoch.
    """

    epoch: int = 0
    step: int = 0
    steps_taken: int = 0
    schedule: tuple[int, int] = (0, 0)
    schedule_is_final: bool = True
    steps_per_epoch: int = 1
    num_choice_cases: int | None = None
    seconds: float = 0.0
    best: float = math.inf
    best_epoch: int = -1
    totals: Tensor = field(default_factory=lambda: torch.zeros(len(NAMES), dtype=torch.float64))

    @property
    def is_schedule_over(self) -> bool:
        """Whether every step of the learning-rate schedule has been taken."""
        return self.steps_taken >= self.schedule[1]

    @property
    def is_epoch_over(self) -> bool:
        """Whether no further step of the running epoch is taken; the schedule may end within it."""
        return self.is_schedule_over or self.step >= self.steps_per_epoch

    def reason_to_stop(self, recipe: Recipe) -> str:
        """Why no further epoch is begun, "" for none; the same on every rank."""
        if self.epoch >= recipe.epochs:
            return f"all {recipe.epochs} epochs are done"
        if self.is_schedule_over and not self.step:  # else the epoch is still to be validated
            return f"all {self.steps_taken} steps that --max-minutes allows are done"
        num_worse = self.epoch - 1 - self.best_epoch
        if recipe.patience and num_worse >= recipe.patience:
            return f"{num_worse} epochs without a better {recipe.best_by} (patience)"
        return ""

    def next_epoch(self) -> None:
        """Moves to the start of the following epoch."""
        self.epoch, self.step = self.epoch + 1, 0
        self.totals.zero_()

    def pack(self, world: World, seconds: float) -> dict[str, Any]:
        """Plain values for a checkpoint; every rank takes part, each with its own sums.

        Args:
            world: This process among its peers.
            seconds: Spent by this process.
        """
        return {
            **vars(self),
            "schedule": list(self.schedule),
            "seconds": self.seconds + seconds,
            "totals": world.all_gather(self.totals.tolist()),
        }

    @classmethod
    def unpack(cls, held: Mapping[str, Any], world: World, num_steps: int, epochs: int) -> Progress:
        """Undoes `pack`.

        A rank takes its own sums where the number of ranks is the same, else the main rank takes
        all of them. Checkpoints of earlier versions know no schedule of their own.

        Args:
            held: What `pack` returned.
            world: This process among its peers.
            num_steps: Steps of an epoch.
            epochs: Epochs of the run.

        Raises:
            KeyError, TypeError, ValueError: `held` is something else.
        """
        sums = torch.tensor(held["totals"], dtype=torch.float64, device=world.device)
        if len(sums) == world.size:
            totals = sums[world.rank]
        else:
            totals = sums.sum(dim=0) if world.is_main else torch.zeros_like(sums[0])
        earlier = {
            "steps_taken": held["epoch"] * num_steps + held["step"],
            "schedule": (0, epochs * num_steps),
            "steps_per_epoch": num_steps,
        }
        values = {**earlier, **held, "totals": totals}
        return cls(**{**values, "schedule": tuple(values["schedule"])})


class StepAction(IntEnum):
    """What to do after a step. Ranks take the greatest of what they propose, so that all agree."""

    CONTINUE = 0
    CHECKPOINT = 1
    STOP = 2
    INTERRUPT = 3
