"""The training loop, to be read from top to bottom.

`train` prepares a run, `Trainer.fit` goes through its epochs, `Trainer.train_epoch` through the
steps of one, and `TrainStep` (in `train_step`) is the step itself: augment, forward, loss,
backward, optimizer, moving average. After each epoch the model is validated, the best one is kept,
and a row is written to metrics.csv.

The position of a run is (epoch, step). The order of the slices, the augmentation and the learning
rate are functions of (seed, epoch, step), so `last.pt` needs little more than the weights and the
state of the optimizer, and a run can be stopped between any two steps and resumed exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from brats_cache.common.errors import BratsError
from brats_train.runtime.distributed import World
from brats_train.runtime.signals import InterruptHandler
from brats_train.runtime.stopwatch import Stopwatch
from brats_train.training.checkpointing import RunCheckpoints
from brats_train.training.choose_postprocessing import check_truth_of, choose_for_run
from brats_train.training.curves_file import CurvesFile
from brats_train.training.disk_space import check_disk_space
from brats_train.training.epoch_record import epoch_line, epoch_row
from brats_train.training.lr_schedule import learning_rate
from brats_train.training.micro_batch import oom_as_error
from brats_train.training.nonfinite import raise_if_nonfinite
from brats_train.training.parts import assemble
from brats_train.training.run_config import PLACE, introduction, resumed_job, run_config
from brats_train.training.run_dir import RunDir
from brats_train.training.schedule_fit import ScheduleFit
from brats_train.training.setup import file_identity
from brats_train.training.state import Finished, Progress, StepAction, TrainJob
from brats_train.training.step_display import StepDisplay
from brats_train.training.time_budget import TimeBudget
from brats_train.training.trackers import Trackers, check_trackers
from brats_train.training.validation import NAMES, means_of

__all__ = ["Trainer", "train"]

STEPS_BETWEEN_CHECKS = 50  # of the loss on a GPU, where reading it makes the host wait

Log = Callable[[str], None]


def train(
    job: TrainJob,
    world: World,
    run: RunDir,
    *,
    resume: bool,
    log: Log,
    started: float | None = None,
) -> Finished:
    """Trains a model and leaves config.json, metrics.csv, best.pt and last.pt in the run directory.

    Every rank calls it with the same arguments; the main rank writes.

    Args:
        job: What to train, on which caches.
        world: This process among its peers.
        run: The run directory.
        resume: Continue from its last.pt.
        log: Takes lines of text for a person.
        started: See `TimeBudget`.

    Returns:
        How training ended.

    Raises:
        BratsError: The data cannot be trained on, the loss is not finite, memory ran out, or the
            disk failed. The last good checkpoint is kept.
    """
    check_trackers(job.trackers)  # before a run directory is made
    with oom_as_error(job.micro_batch, world), ExitStack() as stack:
        held = run.read_config() if resume else None
        trainer = Trainer(job, world, run, log, started, held)
        optimizer = trainer.recipe.optimizer
        world.decide_on_main(lambda: check_disk_space(run, trainer.train_step, optimizer))
        if trainer.is_to_choose and not resume:
            world.decide_on_main(lambda: check_truth_of(trainer.caches, [job.fold]))
        if resume:
            if trainer.resume():
                with trainer.checkpoints.writing():  # first: a process that dies may do it again
                    trainer.save_last()
                if world.is_main:
                    run.write_config(trainer.config())
        elif world.is_main:
            run.begin(trainer.config())
        if world.is_main and (warning := run.make_latest()):
            log(f"Warning: {warning}")
        log(introduction(trainer.config(), trainer.batches.num_steps, trainer.progress))
        stack.enter_context(trainer.checkpoints.writing())
        trainer.trackers = stack.enter_context(Trackers.open(job.trackers, run, world, job.recipe))
        trainer.display = stack.enter_context(StepDisplay.open(log, is_shown=world.is_main))
        finished = trainer.fit(stack.enter_context(InterruptHandler()))
    world.wait_for_main()  # it has written best.pt
    if trainer.is_to_choose and not finished.is_resumable:
        choose_for_run(job, trainer.caches, run, trainer.progress, world, log)
    return finished


class Trainer:
    """One rank's part of a run."""

    trackers: Trackers
    display: StepDisplay

    def __init__(
        self,
        job: TrainJob,
        world: World,
        run: RunDir,
        log: Log,
        started: float | None = None,
        held: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens the caches and builds data path, model and optimizer.

        `held` is the config.json of a run that is resumed, whose weights come from last.pt.
        """
        self.world, self.run, self.log = world, run, log
        self.is_loss_read_each_step = world.device.type == "cpu"
        weights_from = None
        if held is not None:
            job, weights_from = resumed_job(job, held, world), held.get("encoder_weights_from")
        parts = assemble(job, world, log, weights_from)
        self.job, self.recipe, self.caches = parts.job, parts.job.recipe, parts.caches
        self.cache_files, self.train_rows = parts.cache_files, parts.train_rows
        self.train_step = parts.train_step
        self.checkpoints = RunCheckpoints(
            run, world, self.train_step, save_minutes=job.save_minutes
        )
        self.batches, self.validator = parts.batches, parts.validator
        self.progress = Progress(
            schedule=(0, self.recipe.epochs * self.batches.num_steps),
            schedule_is_final=not job.max_minutes,
            steps_per_epoch=self.batches.num_steps,
            totals=torch.zeros(len(NAMES), dtype=torch.float64, device=world.device),
        )
        self.time_budget = TimeBudget(job.max_minutes, started)
        self.schedule_fit = ScheduleFit(
            self.job,
            world,
            self.caches,
            time_budget=self.time_budget,
            train_step=self.train_step,
            validator=self.validator,
            num_steps=self.batches.num_steps,
            is_to_choose=self.is_to_choose,
            log=log,
        )
        self.curves = CurvesFile(run, self.recipe.best_by, log)
        self.first_step = 0  # of this process in the running epoch
        self.validation_seconds = 0.0  # of the last epoch

    def fit(self, interrupts: InterruptHandler) -> Finished:
        """Trains epoch after epoch until there is a reason to stop."""
        progress, stopped = self.progress, ""
        while not (reason := stopped or progress.reason_to_stop(self.recipe)):
            self._check_caches()
            epoch_started, watch = time.monotonic(), Stopwatch(self.world.device)
            action = self.train_epoch(interrupts)
            watch.stop()
            if action is StepAction.INTERRUPT:
                self.save_last()
                return Finished("interrupted", progress.best_epoch + 1, is_resumable=True)
            if action is StepAction.STOP:
                stopped = f"--max-minutes {self.job.max_minutes:g} are over"

            self.display.say(f"epoch {progress.epoch + 1}/{self.recipe.epochs}  validating")
            training, validation = self._read_epoch()
            train_seconds = watch.seconds()
            is_best = self.keep_best(validation)
            self._record(training, validation, train_seconds, epoch_started, is_best)
            self.validation_seconds = time.monotonic() - epoch_started - train_seconds
            self.time_budget.leave_out(self.validation_seconds)
            if not stopped:
                self.schedule_fit.shorten(
                    progress,
                    num_steps=progress.step - self.first_step,
                    training=train_seconds,
                    validation=self.validation_seconds,
                )

            progress.next_epoch()
            if self._agree(self._checkpoint_if_due()) is StepAction.CHECKPOINT:
                self.save_last()
        if not stopped:
            self.schedule_fit.settle(progress)
        self.save_last()
        is_validated = self.validator.num_rows > 0
        return Finished(
            reason, progress.best_epoch + 1, is_resumable=False, is_validated=is_validated
        )

    def train_epoch(self, interrupts: InterruptHandler) -> StepAction:
        """Takes the epoch's remaining steps.

        Returns:
            CONTINUE at the end of the epoch, else STOP or INTERRUPT.
        """
        progress, train_step = self.progress, self.train_step
        self.first_step = progress.step
        self.display.begin_epoch(progress.step)
        if progress.step and progress.is_epoch_over:
            return StepAction.CONTINUE  # interrupted at its last step, by an earlier process
        train_step.model.train()
        for batch in self.batches.epoch(progress.epoch, progress.step):
            lr = learning_rate(
                self.recipe, progress.steps_taken, progress.schedule, self.batches.num_steps
            )
            is_coarse = self.schedule_fit.is_coarse_step(progress)
            train_step(batch, progress.epoch, lr, progress.totals, is_coarse=is_coarse)
            progress.step, progress.steps_taken = batch.step + 1, progress.steps_taken + 1

            if not progress.schedule_is_final:
                self.schedule_fit.count_step(progress)
            is_last = progress.is_epoch_over
            # Reading the loss makes the host wait for a GPU, hence not at every step there; at the
            # end of an epoch it is read with all else.
            is_checked = self.is_loss_read_each_step or (
                progress.step % STEPS_BETWEEN_CHECKS == 0 and not is_last
            )
            action = self._agree(self._next_action(interrupts.requested))
            if is_checked or action is not StepAction.CONTINUE:
                self._raise_if_nonfinite(int(train_step.first_nonfinite))
            if action in (StepAction.STOP, StepAction.INTERRUPT):
                return action
            if is_checked and self.display.is_due():
                self._show_step()
            if is_last:
                break  # a time limit cuts epochs short
            if action is StepAction.CHECKPOINT:
                self.save_last()
        return StepAction.CONTINUE

    @property
    def is_to_choose(self) -> bool:
        """Whether post-processing is chosen at the end; a fold judges the model instead."""
        return self.recipe.choose and self.job.fold is None and self.validator.num_rows > 0

    @property
    def is_compared(self) -> bool:
        """Whether epochs are compared on validation slices; else the last one is the best."""
        return self.recipe.best_by != "last" and self.validator.num_rows > 0

    def keep_best(self, means: dict[str, float]) -> bool:
        """Writes best.pt where the criterion is better than ever before.

        Without a criterion the last weights are the best, which `save_last` writes.
        """
        if not self.is_compared:
            self.progress.best_epoch = self.progress.epoch
            return True
        by = self.recipe.best_by
        value = (-1 if by == "iou" else 1) * means[by]
        if not value < self.progress.best:
            return False
        if self.progress.best_epoch < 0:
            self.save_last()  # first: a best.pt alone shows that somebody removed last.pt
        self.progress.best, self.progress.best_epoch = value, self.progress.epoch
        self.checkpoints.save_best(self.progress)
        return True

    def save_last(self) -> None:
        """Writes last.pt, everything that resuming needs; every rank takes part.

        Where nothing is compared, best.pt follows: writing it every epoch would take the training
        a tenth of a CPU's time for a file that only the last epoch decides.
        """
        self.checkpoints.save_last(self.progress, self.time_budget.spent())
        if not self.is_compared and self.progress.best_epoch >= 0:
            self.checkpoints.save_best(self.progress)

    def resume(self) -> bool:
        """Continues from last.pt; config.json and metrics.csv are brought into step with it.

        Returns:
            Whether the run has other epochs or minutes now, which neither file holds yet.

        Raises:
            BratsError: The settings differ from the run's, each is named, or the ranks do not see
                the same file.
            CheckpointError: The file is damaged, or does not fit this run.
        """
        held = self.run.check_same(self.config())
        held_epochs = held["recipe"]["epochs"]
        self.progress = self.checkpoints.load_last(self.batches.num_steps, held_epochs)
        if self.world.is_main:
            self.run.cut_metrics(self.progress.epoch)
            now = self.config()
            place = {name: now[name] for name in PLACE}
            self.run.write_config({**held, **place})
        is_extended = self.schedule_fit.extend(
            self.progress, epochs=held_epochs, max_minutes=held.get("max_minutes") or 0
        )
        if not self.progress.schedule_is_final:
            self.time_budget.seconds_before = self.progress.seconds
        return is_extended

    def config(self) -> dict[str, Any]:
        """Everything that decides the run, for config.json."""
        return run_config(
            self.job,
            self.world,
            self.caches,
            self.train_step,
            num_train_rows=len(self.train_rows),
            num_val_rows=self.validator.num_rows,
        )

    def _show_step(self) -> None:
        """Shows where the run stands; reads the loss, so it is called where that was read."""
        progress, batches = self.progress, self.batches
        num_left = progress.schedule[1] - progress.steps_taken
        # An epoch that was cut ends with the step that it has reached.
        num_steps = max(progress.step, min(progress.steps_per_epoch, progress.step + num_left))
        num_samples = batches.num_samples_in(progress.step)
        self.display.show(
            epoch=progress.epoch + 1,
            num_epochs=self.recipe.epochs,
            step=progress.step,
            num_steps=num_steps,
            num_left=self.schedule_fit.steps_left(progress),
            slices_per_step=num_samples / progress.step,
            loss=self.world.size * float(progress.totals[0]) / num_samples,  # of this rank's share
            seconds_between=self.validation_seconds * -(-num_left // progress.steps_per_epoch),
            seconds_left=self.time_budget.left(),
        )

    def _next_action(self, is_interrupted: bool) -> StepAction:
        """What this rank proposes after a step."""
        if is_interrupted:
            return StepAction.INTERRUPT
        # Once its steps are fixed a run may use the limit up; before, it keeps time to validate.
        grace = self.validation_seconds if not self.progress.schedule_is_final else 0.0
        if self.time_budget.left() < grace:
            return StepAction.STOP
        return self._checkpoint_if_due()

    def _checkpoint_if_due(self) -> StepAction:
        return StepAction.CHECKPOINT if self.checkpoints.is_due else StepAction.CONTINUE

    def _agree(self, action: StepAction) -> StepAction:
        """One action for all ranks, whose clocks and signals differ."""
        return self.world.max_over_ranks(action)

    def _check_caches(self) -> None:
        """Raises `BratsError` where a cache is not the file that the run began with."""
        for cache, identity in zip(self.caches, self.cache_files, strict=True):
            if file_identity(cache.path) != identity:
                raise BratsError(
                    f"{cache.path}: has changed or disappeared since the run began. Put it back "
                    "and go on with --resume; the last good checkpoint is kept."
                )

    def _read_epoch(self) -> tuple[dict[str, float], dict[str, float]]:
        """Validates, and reads all figures of the epoch: the one time that the host has to wait.

        Returns:
            Means over its training samples and over the validation slices, by `NAMES`.

        Raises:
            BratsError: A loss was not finite.
        """
        bad_step = self.train_step.first_nonfinite.double()[None]  # exact: a power of two, or small
        training = self.world.sum_over_ranks(self.progress.totals.clone())
        validation = self.validator.sums(self.train_step.eval_model)
        first_bad_step, *sums = torch.cat([bad_step, training, validation]).tolist()
        self._raise_if_nonfinite(int(first_bad_step))
        num_samples = self.batches.num_samples_in(self.progress.step)
        return (
            means_of(sums[: len(NAMES)], num_samples),
            means_of(sums[len(NAMES) :], self.validator.num_rows),
        )

    def _raise_if_nonfinite(self, first_bad_step: int) -> None:
        """See `raise_if_nonfinite`; before anything is saved: a state with a bad loss must not
        replace a good one."""
        raise_if_nonfinite(
            first_bad_step,
            self.progress.epoch,
            self.batches,
            self.train_rows,
            self.caches,
            self.world,
        )

    def _record(
        self,
        training: dict[str, float],
        validation: dict[str, float],
        train_seconds: float,
        epoch_started: float,
        is_best: bool,
    ) -> None:
        """Writes the epoch's row to metrics.csv, to the trackers and to the terminal."""
        progress, batches = self.progress, self.batches
        num_samples = batches.num_samples_in(progress.step) - batches.num_samples_in(
            self.first_step
        )
        row = epoch_row(
            epoch=progress.epoch + 1,
            lr=learning_rate(
                self.recipe, progress.steps_taken - 1, progress.schedule, batches.num_steps
            ),
            training=training,
            validation=validation,
            seconds=time.monotonic() - epoch_started,
            train_seconds=train_seconds,
            waited_seconds=batches.waited_seconds,
            num_samples=num_samples,
        )
        if self.world.is_main:
            self.run.append_metrics(row)
            self.trackers.log(row)
            self.curves.refresh()
        self.log(epoch_line(row, self.recipe.epochs, is_best))
        self.display.end_epoch()
