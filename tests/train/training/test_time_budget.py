"""A schedule that fits its time: what is timed, and how many steps follow from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_train.training import time_budget
from brats_train.training.time_budget import (
    MAX_CURVE_SHARE,
    MAX_TIMINGS,
    MAX_VALIDATION_SHARE,
    MIN_EPOCHS,
    TIMED_STEPS,
    WARM_UP_STEPS,
    TimeBudget,
    plan_epochs,
    steps_within,
)


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time_budget, "time", made)
    monkeypatch.setattr(time_budget, "process_age", lambda: 0.0)
    return made


@pytest.mark.parametrize("kinds", [1, 2])
def test_steps_are_timed_by_kind_without_what_lies_between(clock: Clock, kinds: int) -> None:
    """Warm-up steps of 9 s do not count, nor does a validation of 50 s after every step."""
    budget, found = TimeBudget(0.1), None  # of which one timing of each kind is more than the share
    seconds = [9.0] * WARM_UP_STEPS + [1.0] * TIMED_STEPS + [4.0] * TIMED_STEPS
    for number, step in enumerate(seconds[: WARM_UP_STEPS + kinds * TIMED_STEPS]):
        assert found is None
        assert budget.kind == max(0, number - WARM_UP_STEPS) // TIMED_STEPS
        clock.now += step
        found = budget.time_step(lambda: None, kinds, bool)
        clock.now += 50
        budget.leave_out(50)
    assert found == pytest.approx([1.0, 4.0][:kinds])


@pytest.mark.parametrize(
    ("minutes", "num_timings"),
    [(1000, MAX_TIMINGS), (10, 5), (0.1, 1)],  # 3 % of ten minutes are 18 s
)
def test_steps_are_timed_for_a_share_of_the_time(
    clock: Clock, minutes: float, num_timings: int
) -> None:
    """And a program beside the first ones does not decide."""
    budget, found, count = TimeBudget(minutes), None, 0
    while found is None:
        clock.now += 1.0
        count += 1
        found = budget.time_step(lambda: None, 1, bool)
    assert (count - WARM_UP_STEPS) == num_timings * TIMED_STEPS

    budget, found = TimeBudget(1000), None
    for number in range(WARM_UP_STEPS + MAX_TIMINGS * TIMED_STEPS):
        is_alone = number >= WARM_UP_STEPS + (MAX_TIMINGS - 1) * TIMED_STEPS
        clock.now += 1.0 if is_alone else 9.0
        found = budget.time_step(lambda: None, 1, bool)
    assert found == [1.0]


def test_the_main_rank_decides_when_it_is_enough(clock: Clock) -> None:
    budget = TimeBudget(0.1)
    for _ in range(WARM_UP_STEPS + 3 * TIMED_STEPS):
        clock.now += 1.0
        assert budget.time_step(lambda: None, 1, lambda is_enough: False) is None


def test_what_is_left_counts_earlier_processes(clock: Clock) -> None:
    budget = TimeBudget(2.0)
    clock.now += 30
    assert budget.left() == pytest.approx(90)
    budget.seconds_before = 50
    assert budget.left() == pytest.approx(40)
    budget.minutes = 0
    assert budget.left() == float("inf")


@given(
    seconds=st.floats(-100, 1e5),
    step=st.floats(1e-3, 100),
    validation=st.floats(0, 100),
    ending=st.floats(0, 100),
    steps_per_epoch=st.integers(1, 1000),
)
def test_the_steps_fit(
    seconds: float, step: float, validation: float, ending: float, steps_per_epoch: int
) -> None:
    """With the validation of every epoch, a last one and the ending; one step at least."""
    steps = steps_within(
        seconds,
        step=step,
        validation=validation,
        ending=ending,
        steps_per_epoch=steps_per_epoch,
    )
    assert steps >= 1
    if steps > 1:
        spent = steps * step + steps // steps_per_epoch * validation + validation + ending
        assert spent <= seconds * (1 + 1e-9)


@given(
    seconds=st.floats(-100, 1e5),
    step=st.floats(1e-3, 100),
    validation=st.floats(0, 100),
    ending=st.floats(0, 100),
    steps_per_epoch=st.integers(1, 1000),
    num_epochs=st.integers(1, 200),
    validation_share=st.sampled_from([MAX_VALIDATION_SHARE, MAX_CURVE_SHARE]),
)
def test_a_curve_has_points_enough_and_fits(
    seconds: float,
    step: float,
    validation: float,
    ending: float,
    steps_per_epoch: int,
    num_epochs: int,
    validation_share: float,
) -> None:
    """Epochs are cut only where too few fit, and then to as many as can be paid for."""
    times = {"step": step, "validation": validation, "ending": ending}
    whole = steps_within(seconds, **times, steps_per_epoch=steps_per_epoch)
    steps, each = plan_epochs(
        seconds,
        **times,
        steps_per_epoch=steps_per_epoch,
        num_epochs=num_epochs,
        validation_share=validation_share,
    )
    assert 1 <= each <= steps_per_epoch
    assert steps >= 1
    wanted = min(MIN_EPOCHS, num_epochs)
    points = -(-steps // each)
    if whole >= wanted * steps_per_epoch:
        assert (steps, each) == (whole, steps_per_epoch)
    elif each < steps_per_epoch:
        assert points <= wanted
        is_dear = wanted * validation > validation_share * (seconds - ending)
        assert points == wanted or is_dear
        if each > 1:  # else a single step is all that an epoch can hold
            assert steps * step + (points + 1) * validation + ending <= seconds * (1 + 1e-9)
