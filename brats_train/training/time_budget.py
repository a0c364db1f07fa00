"""How many steps fit into --max-minutes, from the speed of the first ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from brats_train.runtime.environment import process_age

__all__ = ["TimeBudget", "plan_epochs", "steps_within"]

WARM_UP_STEPS = 2  # allocate memory and choose algorithms; not timed
TIMED_STEPS = 4  # at once: to wait for the device after every step would slow a GPU down
MAX_TIMINGS = 8  # of each kind of step
TIMED_SHARE = 0.03  # of the time, for each kind of step; one timing at least
MIN_EPOCHS = 8  # points of a curve
MAX_VALIDATION_SHARE = 0.4  # of the time, for that many of them
MAX_CURVE_SHARE = 0.1  # where they draw the curve alone, and no checkpoint is chosen by them
SAFETY = 1.1  # later steps are slower than the timed ones: a warmer CPU, checkpoints being written


class TimeBudget:
    """The minutes of a run that are left.

    Attributes:
        minutes: The limit, 0 for none. It covers the whole process, its start included.
        seconds_before: What earlier processes have spent of it; they count where the steps of a run
            are still to be fitted into its minutes.
        kind: The kind of the step that comes next, from 0; see `time_step`.
    """

    def __init__(self, minutes: float, started: float | None = None) -> None:
        """`started`, by `time.monotonic`, is given where a process has done other things before."""
        self.minutes = minutes
        self.seconds_before = 0.0
        self.kind = 0  # of the step that comes next
        self._num_steps = 0
        self._timed_since = math.nan
        self._seconds_by_kind: list[list[float]] = [[]]
        self._origin = time.monotonic() - process_age() if started is None else started

    def spent(self) -> float:
        """Seconds since this process, or this training in it, started."""
        return time.monotonic() - self._origin

    def left(self) -> float:
        """Seconds left, infinite without a limit."""
        if not self.minutes:
            return math.inf
        return 60 * self.minutes - self.seconds_before - self.spent()

    def time_step(
        self, wait: Callable[[], object], kinds: int, agree: Callable[[bool], bool]
    ) -> list[float] | None:
        """Counts a step that has been taken; the same steps are timed on every rank.

        Each kind is timed `TIMED_STEPS` steps at once, several times, for a share of the minutes:
        a program that runs beside some of the first steps must not decide the whole schedule. Where
        it stays, the schedule is shortened later.

        Args:
            wait: Returns once the device has finished the step.
            kinds: How many kinds of steps are timed, one after the other, see `kind`.
            agree: Returns what rank 0 passes to it, on every rank.

        Returns:
            The shortest seconds of a step of each kind, once, when all are timed; else None.
        """
        self._num_steps += 1
        if (self._num_steps - WARM_UP_STEPS) % TIMED_STEPS:
            return None
        wait()
        since, self._timed_since = self._timed_since, time.monotonic()
        if math.isnan(since):
            return None
        timings = self._seconds_by_kind[-1]
        timings.append((self._timed_since - since) / TIMED_STEPS)
        is_long = TIMED_STEPS * sum(timings) >= TIMED_SHARE * 60 * self.minutes
        if not agree(is_long or len(timings) == MAX_TIMINGS):
            return None
        self.kind += 1
        if self.kind < kinds:
            self._seconds_by_kind.append([])
            return None
        return [min(timings) for timings in self._seconds_by_kind]

    def leave_out(self, seconds: float) -> None:
        """Leaves out of the steps' time what was spent between two of them on something else."""
        self._timed_since += seconds


def steps_within(
    seconds: float, *, step: float, validation: float, ending: float, steps_per_epoch: int
) -> int:
    """The number of steps that fit into `seconds`, at least one.

    Args:
        seconds: What is left.
        step: Seconds of a step.
        validation: Seconds of one validation, which follows each epoch.
        ending: Seconds of what follows the last epoch: saving, choosing the post-processing.
        steps_per_epoch: Steps between two validations.
    """
    each = SAFETY * step + validation / steps_per_epoch
    return max(1, int((seconds - ending - validation) / each))


def plan_epochs(
    seconds: float,
    *,
    step: float,
    validation: float,
    ending: float,
    steps_per_epoch: int,
    num_epochs: int,
    validation_share: float,
) -> tuple[int, int]:
    """The steps that fit into `seconds`, in epochs that are short enough for a curve.

    Where less than `MIN_EPOCHS` epochs fit, they are cut to so many, or to as many as can be
    validated in `validation_share` of the time.

    Args:
        seconds: What is left.
        step: See `steps_within`.
        validation: See `steps_within`.
        ending: See `steps_within`.
        steps_per_epoch: Of an epoch that holds all its slices.
        num_epochs: Epochs that are left to the run.
        validation_share: `MAX_VALIDATION_SHARE` or `MAX_CURVE_SHARE`.

    Returns:
        The number of steps, and of steps of an epoch, at least one each.
    """
    times = {"step": step, "validation": validation, "ending": ending}
    num_steps = steps_within(seconds, **times, steps_per_epoch=steps_per_epoch)
    wanted = min(MIN_EPOCHS, num_epochs)
    if num_steps >= wanted * steps_per_epoch:
        return num_steps, steps_per_epoch
    affordable = validation_share * max(0.0, seconds - ending)
    if wanted * validation > affordable:
        wanted = max(1, int(affordable / validation))
    left = seconds - ending - (wanted + 1) * validation  # the epoch that is begun ends as well
    each = min(steps_per_epoch, max(1, int(left / (SAFETY * step)) // wanted))
    if each == steps_per_epoch:
        return num_steps, steps_per_epoch
    return wanted * each, each
