"""Fits the learning-rate schedule of a run into its time.

It is fixed once the first steps have been timed, shortened where the machine becomes slower, and
extended where a run is given more.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from brats_cache.common.progress import duration
from brats_cache.format.reader import Cache
from brats_train.evaluation.tune_postprocessing import estimate_choice_seconds, most_cases_within
from brats_train.runtime.distributed import World
from brats_train.training.state import Progress, TrainJob
from brats_train.training.time_budget import (
    MAX_CURVE_SHARE,
    MAX_VALIDATION_SHARE,
    SAFETY,
    TimeBudget,
    plan_epochs,
)
from brats_train.training.train_step import TrainStep
from brats_train.training.validation import Validator

__all__ = ["ScheduleFit"]

SAVING_SECONDS = 2.0
MAX_CHOICE_SHARE = 0.2  # of the minutes, for choosing the post-processing
SPARED = 0.03  # of the minutes left: a schedule may lose its last steps, whose rate is near zero
FINE_STEP_COST = 4.0  # in steps at half resolution, which have a quarter of the pixels, until timed


class ScheduleFit:
    """Fixes the number of steps of a run with --max-minutes once the first ones have been timed."""

    def __init__(
        self,
        job: TrainJob,
        world: World,
        caches: Sequence[Cache],
        *,
        time_budget: TimeBudget,
        train_step: TrainStep,
        validator: Validator,
        num_steps: int,
        is_to_choose: bool,
        log: Callable[[str], None],
    ) -> None:
        """Stores the job, its timers and its numbers of steps.

        Args:
            job: What to train.
            world: This process among its peers.
            caches: The opened caches.
            time_budget: The minutes that are left.
            train_step: Its steps are timed.
            validator: Its validations are timed.
            num_steps: Steps of an epoch.
            is_to_choose: Whether post-processing is chosen at the end.
            log: Takes lines of text for a person.
        """
        self._job, self._world, self._caches, self._log = job, world, caches, log
        self._time_budget, self._train_step, self._validator = time_budget, train_step, validator
        self._num_steps, self._is_to_choose = num_steps, is_to_choose
        self._fine_step_cost = FINE_STEP_COST
        self._paces: list[float] = []  # seconds of a step, by epoch; the first one warms up
        self._validation = math.inf  # the shortest so far: now and then a figure is drawn as well

    def is_coarse_step(self, progress: Progress) -> bool:
        """Whether the next step is taken at half resolution."""
        is_coarse = progress.steps_taken < self._fine_from(progress.schedule)
        if not progress.schedule_is_final:
            return is_coarse and self._time_budget.kind == 0  # one kind after the other is timed
        return is_coarse

    def steps_left(self, progress: Progress) -> float:
        """How long the rest of the run is, in steps like the next one."""
        num_left = progress.schedule[1] - progress.steps_taken
        if not self.is_coarse_step(progress):
            return num_left
        return self._cost(progress.steps_taken, progress.schedule[1], progress.schedule)

    def count_step(self, progress: Progress) -> None:
        """Counts a step that has been taken, and fixes `progress.schedule` where it is timed."""
        share = self._job.recipe.half_resolution
        # Reading the loss waits for the device, a few times in a run.
        seconds = self._time_budget.time_step(
            lambda: int(self._train_step.first_nonfinite),
            kinds=2 if share else 1,
            agree=self._world.broadcast,
        )
        if seconds is None:
            return
        step = share * seconds[0] + (1 - share) * seconds[-1]
        self._fine_step_cost = seconds[-1] / seconds[0]
        validation = self._validator.estimate_seconds(self._train_step.eval_model)
        self._train_step.model.train()
        self._limit_choice(progress, validation)
        choice = self._choice_seconds(progress, validation)
        decides = self._job.recipe.best_by != "last"  # which checkpoint is kept
        planned = plan_epochs(
            self._time_budget.left(),
            step=step,
            validation=validation,
            ending=SAVING_SECONDS + choice,
            steps_per_epoch=self._num_steps,
            num_epochs=self._job.recipe.epochs - progress.epoch,
            validation_share=MAX_VALIDATION_SHARE if decides else MAX_CURVE_SHARE,
        )
        steps, each = self._world.broadcast(planned)  # the main rank decides
        end = min(progress.schedule[1], progress.steps_taken + steps)
        progress.schedule_is_final, progress.steps_per_epoch = True, each
        if progress.seconds:  # the rest of a run has other shares of both kinds than the whole
            end = self._end_within(
                self._time_budget.left() - SAVING_SECONDS - choice,
                progress,
                end,
                pace=SAFETY * seconds[0],
                validation=validation,
            )
        progress.schedule = (progress.schedule[0], end)
        left = progress.schedule[1] - progress.steps_taken
        seconds_left = left * step + -(-left // each) * validation + choice
        self._log(
            f"{step:.2f} s a step: {left} more {'step fits' if left == 1 else 'steps fit'} into "
            f"--max-minutes {self._job.max_minutes:g} ({left / self._num_steps:.1f} epochs); about "
            f"{duration(seconds_left)} to go"
        )
        if each < self._num_steps:
            self._log(
                f"Epochs are cut to {each} of {self._num_steps} steps, for a curve of many points"
            )

    def shorten(
        self, progress: Progress, *, num_steps: int, training: float, validation: float
    ) -> None:
        """Ends the schedule sooner where the rest of it would outlast --max-minutes.

        A program that starts beside a training makes its steps slower than the timed ones. Cut off
        when the minutes are over, such a run would end at a high learning rate; so it takes fewer
        steps, and ends at zero.

        Args:
            progress: At the end of an epoch.
            num_steps: That this process has taken in the epoch; none tell no pace.
            training: Seconds of these steps.
            validation: Seconds of the epoch's validation.
        """
        if not (self._job.max_minutes and progress.schedule_is_final and num_steps):
            return
        validation = self._validation = min(validation, self._validation)
        taken, (first, end) = progress.steps_taken, progress.schedule
        self._paces.append(training / self._cost(taken - num_steps, taken, progress.schedule))
        if len(self._paces) < 3:
            return
        pace = min(self._paces[-2:])  # one slow epoch is a burst, two are a slower machine
        left = (
            self._time_budget.left() - SAVING_SECONDS - self._choice_seconds(progress, validation)
        )

        end = self._end_within(left, progress, end, pace=pace, validation=validation)
        if end < progress.schedule[1]:
            self._log(
                f"The steps have become slower: {end - taken} more instead of "
                f"{progress.schedule[1] - taken} fit into --max-minutes {self._job.max_minutes:g}"
            )
            progress.schedule = (first, end)

    def _end_within(
        self, left: float, progress: Progress, end: int, *, pace: float, validation: float
    ) -> int:
        """The end of a schedule that is reached in `left` seconds, `end` at most; on every rank.

        Args:
            left: Seconds; a share `SPARED` more is no reason to shorten.
            progress: Where the run stands.
            end: Of the schedule.
            pace: Seconds of a step of the kind that comes first.
            validation: Seconds of a validation.
        """
        taken, first = progress.steps_taken, progress.schedule[0]

        def seconds(new_end: int) -> float:
            num_epochs = -(-(new_end - taken) // progress.steps_per_epoch)
            return pace * self._cost(taken, new_end, (first, new_end)) + num_epochs * validation

        if seconds(end) > (1 + SPARED) * left:
            end = taken + bisect_right(range(taken + 1, end), left, key=seconds)
        return self._world.broadcast(end)  # the main rank decides

    def extend(self, progress: Progress, *, epochs: int, max_minutes: float) -> bool:
        """Fits a resumed run to other epochs or minutes than it had.

        With more of them, a schedule that is fixed is followed by a second one, and one that is not
        is made longer. With fewer minutes its end is fitted into them, once its steps are timed.

        Args:
            progress: Where the run stands.
            epochs: Of the run so far.
            max_minutes: Of the run so far, 0 for no limit.

        Returns:
            Whether it did.
        """
        limit = self._job.max_minutes or math.inf
        first, end = progress.schedule
        if self._job.recipe.epochs <= epochs and limit <= (max_minutes or math.inf):
            has_less_time = limit < (max_minutes or math.inf) and progress.steps_taken < end
            if has_less_time:
                progress.schedule_is_final = False
            return has_less_time
        if progress.schedule_is_final:
            first = progress.steps_taken
            num_epochs = max(1, self._job.recipe.epochs - progress.epoch)
            end = first - progress.step + num_epochs * self._num_steps
            if self._job.recipe.schedule != "constant":
                self._log("Extended: a second learning-rate schedule begins here.")
        else:  # a limit of time may have cut its last epoch short
            num_epochs = self._job.recipe.epochs - progress.epoch
            end = progress.steps_taken - progress.step + num_epochs * self._num_steps
        progress.schedule = (first, end)
        progress.steps_per_epoch = self._num_steps
        progress.schedule_is_final = not self._job.max_minutes
        progress.num_choice_cases = None
        return True

    def settle(self, progress: Progress) -> None:
        """Fixes the schedule of a run that ended before its steps had been timed."""
        if not progress.schedule_is_final:
            validation = self._validator.estimate_seconds(self._train_step.eval_model)
            self._limit_choice(progress, validation)
            progress.schedule_is_final = True

    def _limit_choice(self, progress: Progress, validation: float) -> None:
        """Decides by how many cases post-processing is chosen; `validation` takes so long."""
        if self._is_to_choose:
            allowed = MAX_CHOICE_SHARE * 60 * self._job.max_minutes
            per_slice = self._seconds_per_slice(validation)
            most = most_cases_within(allowed, self._caches, self._job.fold, per_slice)
            progress.num_choice_cases = self._world.broadcast(most)

    def _fine_from(self, schedule: tuple[int, int]) -> float:
        """The step of a schedule from which on steps are taken at full resolution."""
        first, end = schedule
        return first + self._job.recipe.half_resolution * (end - first)

    def _cost(self, start: int, end: int, schedule: tuple[int, int]) -> float:
        """Steps `start` to `end` of a schedule, counted in the kind that comes first in it."""
        if not self._job.recipe.half_resolution:
            return end - start
        num_coarse = min(max(0.0, self._fine_from(schedule) - start), end - start)
        return num_coarse + self._fine_step_cost * (end - start - num_coarse)

    def _choice_seconds(self, progress: Progress, validation: float) -> float:
        """How long choosing the post-processing takes, by the seconds of a validation."""
        if not self._is_to_choose:
            return 0.0
        return estimate_choice_seconds(
            self._caches,
            self._job.fold,
            self._seconds_per_slice(validation),
            progress.num_choice_cases,
        )

    def _seconds_per_slice(self, validation: float) -> float:
        return validation / max(1, self._validator.num_rows)
