"""What is left of a run whose steps change their size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from brats_train.training.recipe import Recipe
from brats_train.training.schedule_fit import FINE_STEP_COST, ScheduleFit
from brats_train.training.state import Progress


def progress_at(steps_taken: int) -> Any:
    return SimpleNamespace(schedule=(10, 110), schedule_is_final=True, steps_taken=steps_taken)


@pytest.mark.parametrize(
    ("half_resolution", "steps_taken", "left"),
    [
        (0.0, 30, 80),
        (0.7, 10, 70 + 30 * FINE_STEP_COST),
        (0.7, 70, 10 + 30 * FINE_STEP_COST),
        (0.7, 80, 30),  # fine ones from here on
        (0.7, 110, 0),
    ],
)
def test_the_rest_is_counted_in_steps_of_the_present_kind(
    half_resolution: float, steps_taken: int, left: float
) -> None:
    job: Any = SimpleNamespace(recipe=Recipe(half_resolution=half_resolution))
    unused: Any = None
    fit = ScheduleFit(
        job,
        unused,
        [],
        time_budget=unused,
        train_step=unused,
        validator=unused,
        num_steps=100,
        is_to_choose=False,
        log=print,
    )
    progress: Progress = progress_at(steps_taken)
    assert fit.steps_left(progress) == pytest.approx(left)
