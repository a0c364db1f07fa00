"""Where a training stands, within its epochs: a line on a terminal, now and then one elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from brats_cache.common.progress import LineTimer, duration, show_status

__all__ = ["StepDisplay"]

SECONDS_BETWEEN_UPDATES = 0.5  # on a terminal
Print = Callable[[str], None]


class StepDisplay:
    """The display of one run. Its clock of steps leaves out what lies between epochs."""

    def __init__(
        self, update: Callable[[str, float], None] | None, write: Print, *, is_shown: bool
    ) -> None:
        """Made by `open`."""
        self._update, self._write, self._is_shown = update, write, is_shown
        self._timer, self._updated = LineTimer(), -math.inf
        self._began, self._num_before, self._seconds_a_step = time.monotonic(), 0, math.nan

    @classmethod
    @contextmanager
    def open(cls, write: Print, *, is_shown: bool) -> Iterator[StepDisplay]:
        """Shows a run until the context ends.

        Args:
            write: Takes lines where there is no terminal.
            is_shown: False for a rank that does not print.
        """
        with show_status(is_shown=is_shown) as update:
            yield cls(update, write, is_shown=is_shown)

    def begin_epoch(self, step: int) -> None:
        """An epoch begins, or goes on after `step` steps."""
        self._began, self._num_before = time.monotonic(), step

    def end_epoch(self) -> None:
        """Starts anew after the line of an epoch."""
        self._timer.printed()

    def is_due(self) -> bool:
        """Whether `show` would show anything, so that its arguments are worth having."""
        if not self._is_shown:
            return False
        if self._update is None:
            return self._timer.is_due()
        return time.monotonic() - self._updated >= SECONDS_BETWEEN_UPDATES

    def show(
        self,
        *,
        epoch: int,
        num_epochs: int,
        step: int,
        num_steps: int,
        num_left: float,
        slices_per_step: float,
        loss: float,
        seconds_between: float,
        seconds_left: float,
    ) -> None:
        """Shows where the run stands after a step.

        Args:
            epoch: The running epoch, from 1.
            num_epochs: Of the run, at most.
            step: Steps taken in the epoch.
            num_steps: Of the epoch.
            num_left: The rest of the run, in steps that take as long as those of this epoch.
            slices_per_step: Over all ranks.
            loss: Mean over the epoch so far.
            seconds_between: Spent between the epochs that are left, on validation.
            seconds_left: What a time limit leaves to the run; infinite for none.
        """
        num_timed = step - self._num_before
        if num_timed > 1:  # the first one waits for data and chooses algorithms
            self._seconds_a_step = (time.monotonic() - self._began) / num_timed
        pace = self._seconds_a_step
        text = f"epoch {epoch}/{num_epochs}  step {step}/{num_steps}  loss {loss:.4f}"
        if not math.isnan(pace):
            run = min(seconds_left, num_left * pace + seconds_between)
            text += (
                f"  {slices_per_step / pace:.1f}/s"
                f"  left {duration((num_steps - step) * pace)}, run {duration(run)}"
            )
        if self._update is None:
            self._write(text)
            self._timer.printed()
        else:
            self._update(text, step / num_steps)
            self._updated = time.monotonic()

    def say(self, text: str) -> None:
        """Shows what is done between two epochs, on a terminal."""
        if self._update is not None:
            self._update(text, 0.0)
