"""The learning rate of every step, a pure function of the recipe and the step."""

from __future__ import annotations

import math

from brats_train.training.recipe import Recipe

__all__ = ["learning_rate"]

# One cycle as in Smith and Topin 2019, arXiv:1708.07120, with cosine arcs and PyTorch's shape.
_RISE = 0.3
_START, _END = 1 / 25, 1 / 25e4
MAX_WARM_UP = 0.1  # share of the schedule


def learning_rate(
    recipe: Recipe, step: int, schedule: tuple[int, int], steps_per_epoch: int
) -> float:
    """The learning rate of a step.

    Args:
        recipe: Says which schedule and which warm-up, a ramp that multiplies it and takes a tenth
            of the schedule at most.
        step: Number of the step in the run, from 0.
        schedule: First step of the schedule and the step at which it ends.
        steps_per_epoch: For the length of the warm-up.
    """
    first, end = schedule
    progress = min(1.0, (step - first) / max(1, end - first - 1))
    factor = 1.0
    if recipe.schedule == "cosine":
        factor = _arc(1.0, 0.0, progress)
    elif recipe.schedule == "onecycle":
        if progress < _RISE:
            factor = _arc(_START, 1.0, progress / _RISE)
        else:
            factor = _arc(1.0, _END, (progress - _RISE) / (1 - _RISE))
    num_warm = min(recipe.warmup_epochs * steps_per_epoch, MAX_WARM_UP * (end - first))
    if step - first < num_warm:
        factor *= (step - first + 1) / (num_warm + 1)
    return recipe.lr * factor


def _arc(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
