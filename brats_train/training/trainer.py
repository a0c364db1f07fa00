"""Training, to be read from top to bottom: open, build, loop, judge, save.

The position of a run is (epoch, step). With the model, the optimiser and a few sums it is all that
`last.pt` holds, for the order of the rows, the augmentation and the learning rate are functions of
(seed, epoch, step). So a run can be left between any two steps and taken up again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from brats_cache.common.errors import BratsError, printable
from brats_cache.format.cache_set import open_caches
from brats_cache.format.reader import Cache
from brats_train.data.feeders import make_feeder
from brats_train.data.loader import Batch, Batches
from brats_train.data.selection import RowSet, select_rows
from brats_train.evaluation.tune_postprocessing import choose, record_choice
from brats_train.inference.ensemble import load_ensemble
from brats_train.models import checkpoint
from brats_train.runtime.distributed import World
from brats_train.runtime.environment import device_name, versions
from brats_train.runtime.precision import choose_amp, set_up
from brats_train.runtime.signals import InterruptHandler
from brats_train.training.checkpoint_writer import Saver
from brats_train.training.loggers import Trackers
from brats_train.training.lr_schedule import learning_rate
from brats_train.training.micro_batch import is_out_of_memory
from brats_train.training.recipe import recipe_to_dict
from brats_train.training.run_dir import RunDir
from brats_train.training.setup import check_data
from brats_train.training.state import Finished, Position, StepAction, TrainJob
from brats_train.training.train_step import NEVER, Learner
from brats_train.training.validation import NAMES, Validator

__all__ = ["Trainer", "train"]

STEPS_BETWEEN_CHECKS = 50  # of the loss's finiteness on a GPU, where a look makes the host wait
INTERRUPTED = "interrupted"
Say = Callable[[str], None]


def train(job: TrainJob, world: World, run: RunDir, *, resume: bool, say: Say) -> Finished:
    """Trains and leaves config.json, metrics.csv, best.pt and last.pt in `run`.

    Every rank calls it; the main one writes and speaks, through `say`. With `resume`, goes on from
    last.pt. Raises `BratsError` for what cannot be trained, and for a loss that is not finite.
    """
    recipe = job.recipe
    caches = open_caches(job.cache_paths)
    train_rows = select_rows(caches, "train", recipe.rows, job.fold)
    val_rows = select_rows(caches, "val", recipe.rows, job.fold)
    check_data(caches, train_rows, val_rows, recipe, say)
    with ExitStack() as stack, oom_as_error(job, world):
        trainer = Trainer(job, world, run, caches, train_rows, val_rows, say)
        if resume:
            trainer.restore(run)
        elif world.is_main:
            run.begin(trainer.describe())
        if world.is_main:
            run.make_latest()
        say(trainer.introduction())
        trainer.saver = stack.enter_context(Saver())
        trainer.trackers = stack.enter_context(Trackers.open(job.trackers, run, world, recipe))
        interruption = stack.enter_context(InterruptHandler())
        done = trainer.run_epochs(interruption)
    world.broadcast(None)  # the main rank has written best.pt once it comes here
    if recipe.choose and len(val_rows) and not done.is_resumable:
        say("Choosing threshold, flips and smallest component on the validation cases")
        choice = choose(caches, job.fold, load_ensemble([run.best], world.device), world)
        if world.is_main:
            record_choice(run.best, choice)
        say(
            f"Chosen: threshold {choice.threshold:g}, flips {'on' if choice.tta else 'off'}, "
            f"components from {choice.min_component_voxels} voxels"
        )
    return done


@contextmanager
def oom_as_error(job: TrainJob, world: World) -> Iterator[None]:
    """Has a device that is out of memory say so in one message, while it is filled and later."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise BratsError(
            f"Out of memory on {world.device} (--micro-batch {job.micro_batch}): "
            f"{printable(str(error).splitlines()[0])} Close what else uses the device, or give a "
            "smaller --micro-batch; the last good checkpoint is kept."
        ) from error


class Trainer:
    """One rank's part of a run."""

    saver: Saver
    trackers: Trackers

    def __init__(
        self,
        job: TrainJob,
        world: World,
        run: RunDir,
        caches: Sequence[Cache],
        train_rows: RowSet,
        val_rows: RowSet,
        say: Say,
    ) -> None:
        recipe, device = job.recipe, world.device
        self.job, self.recipe, self.world, self.run, self.say = job, recipe, world, run, say
        self.caches, self.train_rows = caches, train_rows
        self.stamps = [_stamp(cache.path) for cache in caches]
        set_up(device, deterministic=job.deterministic)
        largest = -(-min(recipe.batch_size, len(train_rows)) // world.size)
        # The rows that stay on the GPU come first: how many samples fit is tried out beside them.
        feeder = make_feeder(
            caches, train_rows, largest=largest, device=device, resident=job.resident
        )
        self.batches = Batches(
            feeder, len(train_rows), batch_size=recipe.batch_size, seed=recipe.seed, world=world
        )
        amp = choose_amp(recipe.amp, device)
        self.validator = Validator(caches, val_rows, recipe, amp, world, job.resident)
        self.learner = Learner(
            recipe,
            caches,
            world,
            largest=largest,
            micro_batch=job.micro_batch,
            init_from=job.init_from,
            is_compiled=job.compile,
        )
        self.position = Position()
        self.position.totals = self.position.totals.to(device)
        self.first_step = 0
        self.seconds_after_steps = 0.0
        self.saved = self.started = time.monotonic()

    def run_epochs(self, interruption: InterruptHandler) -> Finished:
        """Epoch after epoch until there is a reason to stop."""
        position, ended = self.position, ""
        while not (reason := ended or self._reason_to_stop()):
            self._check_caches()
            epoch_started = time.monotonic()
            ended = self._run_steps(interruption)
            if ended == INTERRUPTED:
                break
            train_seconds = time.monotonic() - epoch_started
            training = self._training_means()
            validation = self.validator.judge(self.learner.judged)
            is_best = self._keep_best(validation if self.validator.num_rows else training)
            self._record(training, validation, train_seconds, epoch_started, is_best)
            self.seconds_after_steps = time.monotonic() - epoch_started - train_seconds
            position.epoch, position.step = position.epoch + 1, 0
            position.totals.zero_()
            # Clocks differ, and saving takes all ranks: they must do it together.
            if self.world.max_over_ranks(
                StepAction.CHECKPOINT if self._is_unsaved() else StepAction.CONTINUE
            ):
                self._save_last()
        self._save_last()
        return Finished(
            reason=ended or reason,
            best_epoch=position.best_epoch + 1,
            is_resumable=ended == INTERRUPTED,
        )

    def _check_caches(self) -> None:
        """Raises `BratsError` where a cache is not the file that the run began with."""
        for cache, stamp in zip(self.caches, self.stamps, strict=True):
            if _stamp(cache.path) != stamp:
                raise BratsError(
                    f"{cache.path}: has changed or disappeared since the run began. Put it back "
                    "and go on with --resume; the last good checkpoint is kept."
                )

    def _run_steps(self, interruption: InterruptHandler) -> str:
        """The rest of the epoch's steps. Returns "", `INTERRUPTED`, or why time is up."""
        position, device = self.position, self.world.device
        self.first_step = position.step
        self.learner.model.train()
        for batch in self.batches.epoch(position.epoch, position.step):
            self.take_step(batch)
            position.step = batch.step + 1
            is_last = position.step == self.batches.num_steps
            # Looking at the loss makes the host wait for the GPU, hence not at every step there.
            is_due = device.type == "cpu" or is_last or position.step % STEPS_BETWEEN_CHECKS == 0
            wish = self.world.max_over_ranks(self._wish(is_due, interruption.requested))
            if wish is StepAction.ABORT:
                self._report_bad_loss()
            if wish is StepAction.INTERRUPT:
                return INTERRUPTED
            if wish is StepAction.STOP and not is_last:
                return f"--max-minutes {self.job.max_minutes:g} are over"
            if wish is StepAction.CHECKPOINT and not is_last:
                self._save_last()
        return ""

    def _wish(self, is_due: bool, is_interrupted: bool) -> StepAction:
        """What this rank would do after this step."""
        if is_due and int(self.learner.first_bad) != NEVER:
            return StepAction.ABORT
        now = time.monotonic()
        limit = 60 * self.job.max_minutes
        if is_interrupted:
            return StepAction.INTERRUPT
        if limit and now - self.started + self.seconds_after_steps > limit:
            return StepAction.STOP
        return StepAction.CHECKPOINT if self._is_unsaved() else StepAction.CONTINUE

    def _is_unsaved(self) -> bool:
        return time.monotonic() - self.saved > 60 * self.job.save_minutes

    def _report_bad_loss(self) -> None:
        """Raises `BratsError` on every rank, naming the first bad step and its rows."""
        step, rank = min(
            (step, rank)
            for rank, step in enumerate(self.world.all_gather(int(self.learner.first_bad)))
        )
        epoch = self.position.epoch
        slices = ""
        if rank == self.world.rank:
            slices = self._name_rows(self.batches.places(epoch, step))
        slices = next(text for text in self.world.all_gather(slices) if text)
        error = BratsError(
            f"The loss is not finite at epoch {epoch + 1}, step {step}, rank {rank}. Its slices: "
            f"{slices}. Try a smaller --lr or --amp off; the last good checkpoint is kept."
        )
        error.is_shared = True
        raise error

    def _name_rows(self, places: np.ndarray, num_shown: int = 8) -> str:
        names = []
        for number, row in zip(
            self.train_rows.cache[places], self.train_rows.row[places], strict=True
        ):
            record = self.caches[number].slices[row]
            case = self.caches[number].cases["id"][record["case"]].decode()
            names.append(f"{printable(case)} z={record['z']}")
        return ", ".join(names[:num_shown]) + (", ..." if len(names) > num_shown else "")

    def take_step(self, batch: Batch) -> None:
        """One step of the optimiser. The host waits for nothing in it."""
        position = self.position
        rate = learning_rate(self.recipe, position.epoch, batch.step, self.batches.num_steps)
        self.learner.step(batch, position.epoch, rate, position.totals)

    def _training_means(self) -> dict[str, float]:
        num_samples = min(self.batches.num_samples, self.position.step * self.recipe.batch_size)
        totals = self.world.sum_over_ranks(self.position.totals.clone())
        return dict(zip(NAMES, (totals / num_samples).tolist(), strict=True))

    def _record(
        self,
        training: dict[str, float],
        validation: dict[str, float],
        train_seconds: float,
        epoch_started: float,
        is_best: bool,
    ) -> None:
        """The epoch's row in metrics.csv, to the trackers and on the terminal."""
        position, num_steps = self.position, self.batches.num_steps
        num_samples = (position.step - self.first_step) * self.recipe.batch_size
        row = {
            "epoch": position.epoch + 1,
            "lr": learning_rate(self.recipe, position.epoch, position.step - 1, num_steps),
            **{f"train_{name}": training[name] for name in NAMES},
            **{f"val_{name}": validation[name] for name in NAMES},
            "seconds": time.monotonic() - epoch_started,
            "slices_per_s": min(num_samples, self.batches.num_samples) / train_seconds,
            "wait_pct": 100 * self.batches.waited_seconds / train_seconds,
        }
        if self.world.is_main:
            self.run.append_metrics(row)
            self.trackers.log(row)
        self.say(_epoch_line(row, self.recipe.epochs, is_best))

    def _reason_to_stop(self) -> str:
        """Why no further epoch is begun, "" for none; the same on every rank."""
        recipe, position = self.recipe, self.position
        if position.epoch >= recipe.epochs:
            return f"all {recipe.epochs} epochs are done"
        num_worse = position.epoch - 1 - position.best_epoch
        if recipe.patience and num_worse >= recipe.patience:
            return f"{num_worse} epochs without a better {recipe.best_by} (patience)"
        return ""

    def _keep_best(self, judged: dict[str, float]) -> bool:
        sign = -1 if self.recipe.best_by == "iou" else 1
        value = sign * judged[self.recipe.best_by]
        if not value < self.position.best:
            return False
        self.position.best, self.position.best_epoch = value, self.position.epoch
        if self.world.is_main:
            content = checkpoint.pack(
                self.learner.segmenter,
                self.learner.judged.state_dict(),
                epoch=self.position.epoch + 1,
            )
            self.saver.submit(self.run.best, content)
        return True

    def _save_last(self) -> None:
        """Snapshots everything needed to go on; every rank takes part."""
        self.saved = time.monotonic()
        position = self.position.pack(self.world)
        if self.world.is_main:
            learner = self.learner
            content = checkpoint.pack(
                learner.segmenter, learner.plain.state_dict(), **learner.state(), position=position
            )
            self.saver.submit(self.run.last, content)

    def restore(self, run: RunDir) -> None:
        """Takes up a run from last.pt. Raises `BratsError` naming what differs from that run."""
        run.check_same(self.describe())
        content = checkpoint.load(run.last)
        try:
            self.learner.load(content)
            self.position = Position.unpack(content["position"], self.world)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BratsError(f"{run.last}: does not fit this run ({error}).") from error
        if self.world.is_main:
            run.cut_metrics(self.position.epoch)

    def describe(self) -> dict[str, Any]:
        """Everything that decides the run, for config.json."""
        job, world = self.job, self.world
        return {
            "recipe_name": job.recipe_name,
            "recipe": recipe_to_dict(job.recipe),
            "caches": [
                {"path": str(cache.path.resolve()), "fingerprint": cache.fingerprint}
                for cache in self.caches
            ],
            "fold": job.fold,
            "init_from": str(job.init_from.resolve()) if job.init_from else None,
            "deterministic": job.deterministic,
            "max_minutes": job.max_minutes,
            "micro_batch": self.learner.micro_batch,
            "amp": self.learner.amp,
            "device": device_name(world.device),
            "world_size": world.size,
            "encoder_weights_from": self.learner.segmenter.weights_from,
            "num_train_rows": len(self.train_rows),
            "num_val_rows": self.validator.num_rows,
            "torchrun_id": os.environ.get("TORCHELASTIC_RUN_ID"),
            "versions": versions(),
        }

    def introduction(self) -> str:
        """What the main rank says before the first step."""
        position, world = self.position, self.world
        text = (
            f"{len(self.train_rows)} training and {self.validator.num_rows} validation slices, "
            f"{self.batches.num_steps} steps an epoch, {world.size} x {world.device.type}, "
            f"amp {self.learner.amp}, encoder weights: {self.learner.segmenter.weights_from}"
        )
        if position.epoch or position.step:
            text += f"\nGoing on at epoch {position.epoch + 1}, step {position.step}"
        return text


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells a file from another of its name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _epoch_line(row: dict[str, float], num_epochs: int, is_best: bool) -> str:
    mark = "  best" if is_best else ""
    return (
        f"epoch {row['epoch']:>3}/{num_epochs}  loss {row['train_loss']:.4f}  "
        f"val iou {row['val_iou']:.4f}  {row['slices_per_s']:.1f} slices/s  "
        f"wait {row['wait_pct']:.1f} %{mark}"
    )
