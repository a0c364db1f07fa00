"""What is shown within an epoch: where it stands, how fast it is, and how long it still takes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from brats_cache.common import progress
from brats_train.training import step_display
from brats_train.training.step_display import StepDisplay

STEP: dict[str, Any] = {
    "epoch": 3,
    "num_epochs": 100,
    "step": 12,
    "num_steps": 130,
    "num_left": 1000,
    "slices_per_step": 16.0,
    "loss": 0.53214,
    "seconds_between": 60.0,
    "seconds_left": math.inf,
}


class Clock:
    """Stands in for the module `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    monkeypatch.setattr(step_display, "time", made)
    return made


def test_a_line_has_rate_loss_and_the_time_left_for_epoch_and_run(clock: Clock) -> None:
    told: list[str] = []
    with StepDisplay.open(told.append, is_shown=True) as display:
        display.begin_epoch(2)  # as a run that is resumed
        clock.now += 20
        assert display.is_due()
        display.show(**STEP)
        assert not display.is_due()
        display.show(**{**STEP, "seconds_left": 90.0})
    assert told == [
        "epoch 3/100  step 12/130  loss 0.5321  8.0/s  left 3:56 min, run 34:20 min",
        "epoch 3/100  step 12/130  loss 0.5321  8.0/s  left 3:56 min, run 1:30 min",
    ]


def test_the_longest_line_fits_eighty_columns(clock: Clock) -> None:
    told: list[str] = []
    with StepDisplay.open(told.append, is_shown=True) as display:
        display.begin_epoch(0)
        clock.now += 2000
        display.show(**{**STEP, "epoch": 100, "step": 1299, "num_steps": 1300, "num_left": 40000})
    assert len(told[0]) <= 80


def test_an_epochs_own_line_spares_another(clock: Clock) -> None:
    with StepDisplay.open(print, is_shown=True) as display:
        clock.now += progress.SECONDS_BETWEEN_LINES
        display.end_epoch()
        assert not display.is_due()


def test_other_ranks_show_nothing(clock: Clock) -> None:
    with StepDisplay.open(print, is_shown=False) as display:
        clock.now += 1e6
        assert not display.is_due()
