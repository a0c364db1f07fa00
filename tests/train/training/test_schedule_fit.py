"""What is left of a run whose steps change their size, and how it keeps to its minutes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from brats_train.training.recipe import Recipe
from brats_train.training.schedule_fit import FINE_STEP_COST, SAVING_SECONDS, ScheduleFit
from brats_train.training.state import Progress
from brats_train.training.time_budget import SAFETY, TimeBudget


def progress_at(steps_taken: int) -> Any:
    return SimpleNamespace(schedule=(10, 110), schedule_is_final=True, steps_taken=steps_taken)


def fit_of(
    half_resolution: float, *, epochs: int = 200, max_minutes: float = 15.0, **given: Any
) -> ScheduleFit:
    recipe = Recipe(half_resolution=half_resolution, epochs=epochs)
    job: Any = SimpleNamespace(recipe=recipe, max_minutes=max_minutes)
    unused: Any = None
    values = {"time_budget": unused, "train_step": unused, "validator": unused, "log": print}
    world: Any = SimpleNamespace(broadcast=lambda value: value)
    return ScheduleFit(job, world, [], num_steps=100, is_to_choose=False, **(values | given))


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
    fit = fit_of(half_resolution)
    progress: Progress = progress_at(steps_taken)
    assert fit.steps_left(progress) == pytest.approx(left)


@pytest.mark.parametrize("half_resolution", [0.0, 0.7])
@pytest.mark.parametrize("slower", [1.0, 1.09, 1.5, 4.0])
@pytest.mark.parametrize("since", [2, 5, 9])
def test_a_machine_that_becomes_slower_takes_fewer_steps(
    half_resolution: float, slower: float, since: int
) -> None:
    """The run ends near the end of its schedule, within its minutes but for the last epochs.

    One slow epoch alone is no reason.
    """
    num_steps, validation, told = 10, 2.0, list[str]()
    pace, spent = 1.0, 0.0

    def seconds(start: int, end: int, schedule: tuple[int, int]) -> float:
        fine_from = half_resolution * schedule[1]
        return sum(
            1.0 if half_resolution and step < fine_from else FINE_STEP_COST
            for step in range(start, end)
        )

    planned = SAFETY * seconds(0, 100, (0, 100)) + 10 * validation + SAVING_SECONDS
    budget = SimpleNamespace(left=lambda: planned - spent)
    fit = fit_of(half_resolution, time_budget=budget, log=told.append)
    progress = Progress(schedule=(0, 100), steps_per_epoch=num_steps)
    longest = 0.0
    while not progress.is_schedule_over:
        pace = slower if progress.epoch >= since else 1.0
        if slower == 1.0 and progress.epoch == since:
            pace = 1.5  # a burst
        end = min(progress.steps_taken + num_steps, progress.schedule[1])
        training = pace * seconds(progress.steps_taken, end, progress.schedule)
        longest = max(longest, training)
        spent += training + validation
        taken, progress.steps_taken = end - progress.steps_taken, end
        drawn = 20.0 if progress.epoch == 3 else 0.0  # figures, once: no reason to shorten
        fit.shorten(progress, num_steps=taken, training=training, validation=validation + drawn)
        progress.epoch += 1
    assert spent <= planned + longest
    assert bool(told) == (progress.steps_taken < 100)
    if slower < SAFETY:
        assert not told
    elif since < 9:
        assert told
        assert spent >= 0.9 * planned


def test_an_epoch_of_no_step_tells_no_pace() -> None:
    """As after an interrupt at the last step of an epoch."""
    progress = Progress(schedule=(0, 100), steps_per_epoch=10, step=10, steps_taken=10)
    fit = fit_of(0.0)
    for _ in range(4):
        fit.shorten(progress, num_steps=0, training=0.0, validation=1.0)
    assert progress.schedule == (0, 100)


def test_more_epochs_end_the_second_schedule_with_their_last_step() -> None:
    """Whether the run was left between two epochs or in one."""
    for epoch, step in ((10, 0), (9, 90)):
        taken = 100 * epoch + step
        progress = Progress(schedule=(0, 1000), steps_per_epoch=100, epoch=epoch, step=step)
        progress.steps_taken = taken
        fit = fit_of(0.0, epochs=12, max_minutes=0.0)
        assert fit.extend(progress, epochs=10, max_minutes=0.0)
        assert progress.schedule == (taken, 1200)
        assert progress.schedule_is_final


@pytest.mark.parametrize("before", [0.0, 60.0])
def test_a_limit_that_is_added_or_lowered_is_fitted(before: float) -> None:
    progress = Progress(schedule=(0, 1000), steps_per_epoch=100, epoch=3, steps_taken=300)
    assert fit_of(0.0, epochs=10).extend(progress, epochs=10, max_minutes=before)
    assert not progress.schedule_is_final  # the next steps are timed
    assert progress.schedule == (0, 1000)
    done = Progress(schedule=(0, 300), steps_per_epoch=100, epoch=3, steps_taken=300)
    assert not fit_of(0.0, epochs=10).extend(done, epochs=10, max_minutes=before)


@pytest.mark.parametrize("half_resolution", [0.0, 0.7])
@pytest.mark.parametrize("taken", [100, 500, 800])
def test_a_lowered_limit_is_kept_whatever_kinds_of_steps_are_left(
    half_resolution: float, taken: int
) -> None:
    """Fewer steps move the change to full resolution forward, where steps take four times as long.

    A step of the first kind takes a second, a validation two.
    """
    minutes, spent_before = 60.0, 60.0 * 30
    budget: Any = TimeBudget(minutes, started=time.monotonic())
    budget.seconds_before = spent_before
    fine = 4.0 if half_resolution else 1.0
    seconds = [1.0, fine] if half_resolution else [1.0]
    budget.time_step = lambda *_, **__: seconds
    model = torch.nn.Identity()
    step: Any = SimpleNamespace(first_nonfinite=0, eval_model=model, model=model)
    validator: Any = SimpleNamespace(estimate_seconds=lambda _: 2.0, num_rows=1)
    fit = fit_of(
        half_resolution,
        epochs=100,
        max_minutes=minutes,
        time_budget=budget,
        train_step=step,
        validator=validator,
        log=lambda _: None,
    )
    progress = Progress(schedule=(0, 10_000), steps_per_epoch=100, steps_taken=taken)
    progress.epoch, progress.seconds = taken // 100, spent_before
    assert fit.extend(progress, epochs=100, max_minutes=0.0)
    fit.count_step(progress)
    first, end = progress.schedule
    num_coarse = max(0.0, half_resolution * end - taken)
    cost = num_coarse + fine * (end - taken - num_coarse) + 2 * (end - taken) / 100
    assert 0.8 * 1800 <= cost <= 1800
    assert first == 0


def test_the_same_limit_changes_nothing() -> None:
    for minutes in (0.0, 15.0):
        progress = Progress(schedule=(0, 1000), steps_per_epoch=100, steps_taken=300)
        fit = fit_of(0.0, epochs=10, max_minutes=minutes)
        assert not fit.extend(progress, epochs=10, max_minutes=minutes)
        assert progress.schedule_is_final
