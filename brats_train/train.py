"""Training, to be read from top to bottom: open, build, loop, judge, save.

The position of a run is (epoch, step). With the model, the optimiser and a few sums it is all that
`last.pt` holds, for the order of the rows, the augmentation and the learning rate are functions of
(seed, epoch, step). So a run can be left between any two steps and taken up again.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brats_cache.errors import BratsError, printable
from brats_cache.store import Cache

from . import augment, checkpoint, losses
from .checkpoint import Saver, Segmenter
from .distributed import World
from .interruption import Interruption
from .loader import Batch, Batches, make_feeder, region_targets
from .model import ModelConfig
from .precision import autocast, choose_amp, set_up
from .recipes import Recipe, recipe_to_dict
from .rows import RowSet, open_caches, select_rows
from .run_dir import RunDir
from .schedule import learning_rate
from .setup import (
    average_of,
    check_data,
    choose_micro_batch,
    common_scheme,
    compiled,
    device_name,
    first_model,
    versions,
)
from .tracking import Trackers
from .validation import NAMES, Validator, sums_of

__all__ = ["Finished", "TrainJob", "train"]

STEPS_BETWEEN_CHECKS = 50  # of the loss's finiteness on a GPU, where a look makes the host wait
INTERRUPTED = "interrupted"
NEVER = 2**62  # a step that no loss was bad at


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What `brats train` was asked to do, beside the recipe.

    fold         validates in place of the cache's own split; None for that
    max_minutes  training ends, judged and saved, before it would take longer; 0 for no limit
    save_minutes between two writings of last.pt
    micro_batch  "auto", or the samples a rank computes at once
    resident     see `loader.make_feeder`
    init_from    a checkpoint to take the model's weights from, instead of encoder weights
    trackers     of `tracking.TRACKERS`
    """

    cache_paths: tuple[Path, ...]
    recipe_name: str
    recipe: Recipe
    fold: int | None = None
    max_minutes: float = 0.0
    save_minutes: float = 5.0
    micro_batch: str = "auto"
    resident: str = "auto"
    init_from: Path | None = None
    compile: bool = False
    deterministic: bool = False
    trackers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How training ended. `is_resumable`: it was interrupted between two steps."""

    reason: str
    best_epoch: int
    is_resumable: bool


@dataclass(kw_only=True)
class Position:
    """Where a run stands, and what it knows of its way: all that changes but tensors of the model.

    totals       (4,) float64 sums of `NAMES` over this rank's samples of the running epoch
    best         the best value of the recipe's criterion, less being better
    """

    epoch: int = 0
    step: int = 0
    best: float = math.inf
    best_epoch: int = 0
    seconds: float = 0.0
    totals: Tensor = field(default_factory=lambda: torch.zeros(len(NAMES), dtype=torch.float64))


class Wish(IntEnum):
    """What a rank wants after a step; the ranks do what the strongest of their wishes is."""

    GO_ON = 0
    SAVE = 1
    END = 2
    LEAVE = 3
    FAIL = 4


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
    with ExitStack() as stack:
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
        interruption = stack.enter_context(Interruption())
        try:
            return trainer.run_epochs(interruption)
        except torch.OutOfMemoryError as error:
            raise BratsError(
                f"Out of memory on {world.device} (--micro-batch {trainer.micro_batch}). Give a "
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
        self.amp = choose_amp(recipe.amp, device)
        set_up(device, deterministic=job.deterministic)

        torch.manual_seed(recipe.seed)  # the same first weights on every rank
        config = ModelConfig(
            in_channels=caches[0].shape[1], classes=len(recipe.regions), encoder=recipe.encoder
        )
        self.plain, weights_from = first_model(config, recipe.encoder_weights, job.init_from)
        if recipe.sync_batchnorm and device.type == "cuda" and world.size > 1:
            self.plain = nn.SyncBatchNorm.convert_sync_batchnorm(self.plain)
        self.plain.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = world.wrap(compiled(self.plain) if job.compile else self.plain)
        self.averaged = average_of(self.plain, recipe.ema)
        self.optimizer = torch.optim.AdamW(
            self.plain.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp == "fp16")
        self.segmenter = Segmenter(
            model=config,
            regions=recipe.regions,
            preparation=caches[0].preparation,
            label_scheme=common_scheme(caches),
            weights_from=weights_from,
        )
        largest = -(-min(recipe.batch_size, len(train_rows)) // world.size)
        self.micro_batch = choose_micro_batch(
            job.micro_batch, self.plain, largest, caches[0].shape, self.amp, world
        )
        feeder = make_feeder(
            caches, train_rows, largest=largest, device=device, resident=job.resident
        )
        self.batches = Batches(
            feeder, len(train_rows), batch_size=recipe.batch_size, seed=recipe.seed, world=world
        )
        self.validator = Validator(caches, val_rows, recipe, self.amp, world, job.resident)
        self.position = Position()
        self.position.totals = self.position.totals.to(device)
        self.first_bad = torch.full((), NEVER, dtype=torch.int64, device=device)
        self.first_step = 0
        self.seconds_after_steps = 0.0
        self.saved = self.started = time.monotonic()

    def run_epochs(self, interruption: Interruption) -> Finished:
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
            validation = self.validator.judge(self.judged)
            is_best = self._keep_best(validation if self.validator.num_rows else training)
            self._record(training, validation, train_seconds, epoch_started, is_best)
            self.seconds_after_steps = time.monotonic() - epoch_started - train_seconds
            position.epoch, position.step = position.epoch + 1, 0
            position.totals.zero_()
            # Clocks differ, and saving takes all ranks: they must do it together.
            if self.world.strongest(Wish.SAVE if self._is_unsaved() else Wish.GO_ON):
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

    def _run_steps(self, interruption: Interruption) -> str:
        """The rest of the epoch's steps. Returns "", `INTERRUPTED`, or why time is up."""
        position, device = self.position, self.world.device
        self.first_step = position.step
        self.model.train()
        for batch in self.batches.epoch(position.epoch, position.step):
            self.take_step(batch)
            position.step = batch.step + 1
            is_last = position.step == self.batches.num_steps
            # Looking at the loss makes the host wait for the GPU, hence not at every step there.
            is_due = device.type == "cpu" or is_last or position.step % STEPS_BETWEEN_CHECKS == 0
            wish = self.world.strongest(self._wish(is_due, interruption.requested))
            if wish is Wish.FAIL:
                self._report_bad_loss()
            if wish is Wish.LEAVE:
                return INTERRUPTED
            if wish is Wish.END and not is_last:
                return f"--max-minutes {self.job.max_minutes:g} are over"
            if wish is Wish.SAVE and not is_last:
                self._save_last()
        return ""

    def _wish(self, is_due: bool, is_interrupted: bool) -> Wish:
        """What this rank would do after this step."""
        if is_due and int(self.first_bad) != NEVER:
            return Wish.FAIL
        now = time.monotonic()
        limit = 60 * self.job.max_minutes
        if is_interrupted:
            return Wish.LEAVE
        if limit and now - self.started + self.seconds_after_steps > limit:
            return Wish.END
        return Wish.SAVE if self._is_unsaved() else Wish.GO_ON

    def _is_unsaved(self) -> bool:
        return time.monotonic() - self.saved > 60 * self.job.save_minutes

    def _report_bad_loss(self) -> None:
        """Raises `BratsError` on every rank, naming the first bad step and its rows."""
        step, rank = min(
            (step, rank) for rank, step in enumerate(self.world.gather(int(self.first_bad)))
        )
        epoch = self.position.epoch
        slices = ""
        if rank == self.world.rank:
            slices = self._name_rows(self.batches.places(epoch, step))
        slices = next(text for text in self.world.gather(slices) if text)
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
        recipe, world, position = self.recipe, self.world, self.position
        rate = learning_rate(recipe, position.epoch, batch.step, self.batches.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images, masks = self._augment(batch)
        self.optimizer.zero_grad(set_to_none=True)
        starts = range(0, len(images), self.micro_batch)
        for start in starts:
            piece = slice(start, start + self.micro_batch)
            targets = region_targets(masks[piece], recipe.regions)
            # Gradients travel between ranks once a step, with the last piece.
            is_last = start == starts[-1]
            with nullcontext() if is_last else world.without_exchange(self.model):
                with autocast(self.amp, world.device):
                    pixels = images[piece].contiguous(memory_format=torch.channels_last)
                    logits = self.model(pixels)
                terms = losses.compute(
                    recipe.loss, logits, targets, reduce=world.differentiable_sum
                )
                # Gradients are averaged over ranks; scaled so, they are the mean over the global
                # batch even where ranks hold unequal parts of it.
                loss = terms.total.sum() * (world.size / batch.global_size)
                self.scaler.scale(loss).backward()
            with torch.no_grad():  # sums stay on the device
                position.totals += sums_of(terms, logits, targets)
                bad = torch.where(loss.isfinite(), NEVER, batch.step)
                self.first_bad = torch.minimum(self.first_bad, bad)
        if recipe.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.plain.parameters(), recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.plain)

    def _training_means(self) -> dict[str, float]:
        num_samples = min(self.batches.num_samples, self.position.step * self.recipe.batch_size)
        totals = self.world.sum(self.position.totals.clone())
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

    def _augment(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The batch as the parameters drawn for the global batch change this rank's part of it."""
        parameters = augment.draw(
            self.recipe.augment,
            num_samples=batch.global_size,
            num_modalities=batch.images.shape[1],
            seed=self.recipe.seed,
            epoch=self.position.epoch,
            step=batch.step,
            device=self.world.device,
        )
        part = parameters.slice(batch.part.start, batch.part.stop)
        return augment.apply(batch.images, batch.masks, part)

    @property
    def judged(self) -> nn.Module:
        """The model that is validated and kept as best: the average where there is one."""
        return self.plain if self.averaged is None else self.averaged.module

    def _keep_best(self, judged: dict[str, float]) -> bool:
        sign = -1 if self.recipe.best_by == "iou" else 1
        value = sign * judged[self.recipe.best_by]
        if not value < self.position.best:
            return False
        self.position.best, self.position.best_epoch = value, self.position.epoch
        if self.world.is_main:
            content = checkpoint.pack(
                self.segmenter, self.judged.state_dict(), epoch=self.position.epoch + 1
            )
            self.saver.submit(self.run.best, content)
        return True

    def _save_last(self) -> None:
        """Snapshots everything needed to go on; every rank takes part."""
        self.saved = time.monotonic()
        position = self.position
        totals = self.world.gather(position.totals.tolist())
        if not self.world.is_main:
            return
        content = checkpoint.pack(
            self.segmenter,
            self.plain.state_dict(),
            averaged=self.averaged.state_dict() if self.averaged is not None else None,
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            generator=torch.get_rng_state(),
            position={
                "epoch": position.epoch,
                "step": position.step,
                "best": position.best,
                "best_epoch": position.best_epoch,
                "seconds": position.seconds + time.monotonic() - self.started,
                "totals": totals,
            },
        )
        self.saver.submit(self.run.last, content)

    def restore(self, run: RunDir) -> None:
        """Takes up a run from last.pt. Raises `BratsError` naming what differs from that run."""
        run.check_same(self.describe())
        content = checkpoint.load(run.last)
        try:
            self.plain.load_state_dict(content["model"])
            if self.averaged is not None:
                self.averaged.load_state_dict(content["averaged"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            torch.set_rng_state(content["generator"])
            held = content["position"]
            totals = _share_of_totals(held["totals"], self.world)
            self.position = Position(**{**held, "totals": totals.to(self.world.device)})
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
            "micro_batch": self.micro_batch,
            "amp": self.amp,
            "device": device_name(world.device),
            "world_size": world.size,
            "encoder_weights_from": self.segmenter.weights_from,
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
            f"amp {self.amp}, encoder weights: {self.segmenter.weights_from}"
        )
        if position.epoch or position.step:
            text += f"\nGoing on at epoch {position.epoch + 1}, step {position.step}"
        return text


def _share_of_totals(totals: list[list[float]], world: World) -> Tensor:
    """This rank's sums of an epoch that was left: its own where as many ranks go on, else the main
    rank takes all."""
    held = torch.tensor(totals, dtype=torch.float64)
    if len(held) == world.size:
        return held[world.rank]
    return held.sum(dim=0) if world.is_main else torch.zeros_like(held[0])


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
