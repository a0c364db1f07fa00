"""The learning rate of every step, a pure function of the recipe: nothing to save, nothing to
restore."""

from __future__ import annotations

import math

from brats_train.training.recipe import Recipe

__all__ = ["learning_rate"]

# One cycle as in Smith and Topin 2019, arXiv:1708.07120, with cosine arcs and PyTorch's shape.
_RISE = 0.3
_START, _END = 1 / 25, 1 / 25e4


def learning_rate(recipe: Recipe, epoch: int, step: int, num_steps: int) -> float:
    """The rate of step `step` of `num_steps` in epoch `epoch`, both from 0.

    The schedule runs over all steps of the recipe; a warm-up multiplies it by a ramp.
    """
    position = epoch * num_steps + step
    progress = position / max(1, recipe.epochs * num_steps - 1)
    factor = 1.0
    if recipe.schedule == "cosine":
        factor = _arc(1.0, 0.0, progress)
    elif recipe.schedule == "onecycle":
        if progress < _RISE:
            factor = _arc(_START, 1.0, progress / _RISE)
        else:
            factor = _arc(1.0, _END, (progress - _RISE) / (1 - _RISE))
    num_warm = recipe.warmup_epochs * num_steps
    if position < num_warm:
        factor *= (position + 1) / (num_warm + 1)
    return recipe.lr * factor


def _arc(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
