"""The learning rate, against PyTorch's own schedules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.optim import lr_scheduler

from brats_train.training.lr_schedule import learning_rate
from brats_train.training.recipe import Recipe

RECIPE = Recipe(lr=0.1)
NUM_STEPS = 50


def rates(recipe: Recipe, first: int = 0, num_steps: int = NUM_STEPS) -> list[float]:
    schedule = (first, first + num_steps)
    return [learning_rate(recipe, step, schedule, 10) for step in range(*schedule)]


def pytorchs(make: type[lr_scheduler.LRScheduler], **arguments: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = make(optimizer, **arguments)
    found = []
    for _ in range(NUM_STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("first", [0, 33])
def test_the_shapes_are_pytorchs(first: int) -> None:
    assert rates(RECIPE, first) == [0.1] * NUM_STEPS
    cosine = pytorchs(lr_scheduler.CosineAnnealingLR, T_max=NUM_STEPS - 1)
    assert rates(replace(RECIPE, schedule="cosine"), first) == pytest.approx(cosine)
    cycle = pytorchs(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=NUM_STEPS)
    found = rates(replace(RECIPE, schedule="onecycle"), first)
    assert found == pytest.approx(cycle, abs=0.01)  # its peak lies between two steps


def test_the_rate_ends_at_zero() -> None:
    assert rates(replace(RECIPE, schedule="cosine"))[-1] == 0


def test_the_warm_up_is_a_ramp_of_a_tenth_of_the_schedule_at_most() -> None:
    warm = replace(RECIPE, warmup_epochs=0.3)  # three steps
    assert rates(warm)[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    long = replace(RECIPE, warmup_epochs=100)
    assert rates(long)[4] < 0.1 == rates(long)[5]
