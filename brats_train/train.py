"""Training, to be read from top to bottom: open, build, loop, judge, save."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brats_cache import __version__
from brats_cache.errors import BratsError
from brats_cache.store import Cache, open_cache

from . import augment, checkpoint, losses
from .checkpoint import Segmenter
from .counts import iou_from_counts, overlap_counts
from .distributed import World
from .loader import Batch, Batches, RowSet, gather_rows, region_targets, select_rows
from .model import ModelConfig, build_model, load_encoder_weights
from .precision import autocast, choose_amp
from .recipes import Recipe, recipe_to_dict
from .run_dir import RunDir

__all__ = ["TrainJob", "open_caches", "train"]

MINUTES_BETWEEN_SAVES = 5.0
ROWS_PER_VALIDATION_BATCH = 32
_NAMES = ("loss", "bce", "iou_loss", "iou")


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What `brats train` was asked to do, beside the recipe.

    fold         validates in place of the cache's own split; None for that
    max_minutes  no epoch is begun that would probably end later; 0 for no limit
    """

    cache_paths: tuple[Path, ...]
    recipe_name: str
    recipe: Recipe
    fold: int | None = None
    max_minutes: float = 0.0


Listener = Callable[[str], None]


def open_caches(paths: Sequence[Path]) -> list[Cache]:
    """Opens caches that are to be read as one. Raises `BratsError` where they do not fit together:
    pixels made in different ways, or one case twice."""
    caches = [open_cache(path) for path in paths]
    first = caches[0]
    holder: dict[bytes, Path] = {}
    for cache in caches:
        if cache.preparation != first.preparation:
            raise BratsError(
                f"{cache.path} and {first.path} were prepared differently: "
                f"{cache.preparation} and {first.preparation}."
            )
        for case in cache.cases["id"].tolist():
            if case in holder:
                raise BratsError(f"{case.decode()}: in {holder[case]} and again in {cache.path}.")
            holder[case] = cache.path
    return caches


def train(job: TrainJob, world: World, run: RunDir, say: Listener) -> None:
    """Trains and leaves config.json, metrics.csv, best.pt and last.pt in `run`.

    Every rank calls it; the main one writes and speaks, through `say`.
    """
    recipe, device = job.recipe, world.device
    caches = open_caches(job.cache_paths)
    train_rows = select_rows(caches, "train", recipe.rows, job.fold)
    val_rows = select_rows(caches, "val", recipe.rows, job.fold)
    _check_rows(train_rows, val_rows, caches, recipe, say)
    amp = choose_amp(recipe.amp, device)
    _set_up_torch(device)

    torch.manual_seed(recipe.seed)  # the same first weights on every rank
    config = ModelConfig(
        in_channels=caches[0].shape[1], classes=len(recipe.regions), encoder=recipe.encoder
    )
    plain = build_model(config)
    weights_from = load_encoder_weights(plain, recipe.encoder_weights)
    plain.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model = world.wrap(plain)
    optimizer = torch.optim.AdamW(
        plain.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")
    segmenter = Segmenter(
        model=config,
        regions=recipe.regions,
        preparation=caches[0].preparation,
        label_scheme=_common_scheme(caches),
        weights_from=weights_from,
    )
    batches = Batches(
        caches, train_rows, batch_size=recipe.batch_size, seed=recipe.seed, world=world
    )
    if world.is_main:
        run.begin(_describe(job, world, caches, amp, weights_from, train_rows, val_rows))
        say(
            f"{len(train_rows)} training and {len(val_rows)} validation slices, "
            f"{batches.num_steps} steps an epoch, {world.size} x {device.type}, amp {amp}, "
            f"encoder weights: {weights_from}"
        )

    started = saved = time.monotonic()
    best_loss, best_epoch = math.inf, 0
    for epoch in range(recipe.epochs):
        epoch_started = time.monotonic()
        totals, train_seconds, wait_seconds = _train_epoch(
            model, optimizer, scaler, batches, recipe, amp, world, epoch, say
        )
        validation = _validate(plain, caches, val_rows, recipe, amp, world)
        now = time.monotonic()
        judged = validation if len(val_rows) else totals
        is_best = judged["iou_loss"] < best_loss
        if is_best:
            best_loss, best_epoch = judged["iou_loss"], epoch
        stopping = _reason_to_stop(job, epoch, epoch - best_epoch, started, epoch_started, now)
        stopping = world.share(stopping)  # clocks differ; all ranks must leave together
        if world.is_main:
            row = {
                "epoch": epoch + 1,
                "lr": learning_rate(recipe, epoch, batches.num_steps, batches.num_steps - 1),
                **{f"train_{name}": totals[name] for name in _NAMES},
                **{f"val_{name}": validation[name] for name in _NAMES},
                "seconds": now - epoch_started,
                "slices_per_s": batches.num_samples / train_seconds,
                "wait_pct": 100 * wait_seconds / train_seconds,
            }
            run.append_metrics(row)
            say(_epoch_line(row, recipe.epochs, is_best))
            if is_best:
                checkpoint.save(run.best, segmenter, plain, epoch=epoch + 1)
            if stopping or now - saved > 60 * MINUTES_BETWEEN_SAVES:
                saved = now
                state = {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
                checkpoint.save(run.last, segmenter, plain, epoch=epoch + 1, **state)
        if stopping:
            if world.is_main:
                say(f"Finished: {stopping}. Best epoch {best_epoch + 1}: {run.best}")
            return


def learning_rate(recipe: Recipe, epoch: int, num_steps: int, step: int) -> float:
    """The rate of one step: `recipe.lr`, or half a cosine from it to zero over all steps."""
    if recipe.schedule == "constant":
        return recipe.lr
    progress = (epoch * num_steps + step) / max(1, recipe.epochs * num_steps)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batches: Batches,
    recipe: Recipe,
    amp: str,
    world: World,
    epoch: int,
    say: Listener,
) -> tuple[dict[str, float], float, float]:
    """One pass over the training rows: means over all ranks, seconds, seconds waited for data."""
    model.train()
    device = world.device
    totals = torch.zeros(len(_NAMES), dtype=torch.float64, device=device)
    first_bad = torch.full((), batches.num_steps, dtype=torch.int64, device=device)
    started = time.monotonic()
    for batch in batches.epoch(epoch):
        rate = learning_rate(recipe, epoch, batches.num_steps, batch.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, masks = _augment(batch, recipe, epoch, device)
        targets = region_targets(masks, recipe.regions)
        with autocast(amp, device):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        terms = losses.compute(recipe.loss, logits, targets, reduce=world.differentiable_sum)
        # Gradients are averaged over ranks; scaled so, they are the mean over the global batch
        # even where ranks hold unequal parts of it.
        loss = terms.total.sum() * (world.size / batch.global_size)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():  # sums stay on the device: the host does not wait in the loop
            totals += _sums(terms, logits, targets)
            bad = torch.where(loss.isfinite(), batches.num_steps, batch.step)
            first_bad = torch.minimum(first_bad, bad)
    means = world.sum(totals) / batches.num_samples
    values = dict(zip(_NAMES, means.tolist(), strict=True))  # the epoch's one synchronisation
    if (step := int(first_bad)) < batches.num_steps:
        raise BratsError(
            f"The loss is not finite at epoch {epoch + 1}, step {step}, rank {world.rank}. "
            "Try a smaller --lr or --amp off; the last good checkpoint is kept."
        )
    return values, time.monotonic() - started, batches.waited_seconds


def _augment(
    batch: Batch, recipe: Recipe, epoch: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The batch as the parameters drawn for the whole global batch change this rank's part."""
    parameters = augment.draw(
        recipe.augment,
        num_samples=batch.global_size,
        num_modalities=batch.images.shape[1],
        seed=recipe.seed,
        epoch=epoch,
        step=batch.step,
        device=device,
    )
    part = parameters.slice(batch.part.start, batch.part.stop)
    return augment.apply(batch.images, batch.masks, part)


@torch.inference_mode()
def _validate(
    model: nn.Module,
    caches: Sequence[Cache],
    rows: RowSet,
    recipe: Recipe,
    amp: str,
    world: World,
) -> dict[str, float]:
    """Means over the validation rows, each judged once: ranks share them out without padding."""
    if not len(rows):
        return dict.fromkeys(_NAMES, math.nan)
    world.unison_buffers(model)
    model.eval()
    totals = torch.zeros(len(_NAMES), dtype=torch.float64, device=world.device)
    mine = np.arange(len(rows))[world.part(len(rows))]
    for start in range(0, len(mine), ROWS_PER_VALIDATION_BATCH):
        chosen = rows[mine[start : start + ROWS_PER_VALIDATION_BATCH]]
        images, masks = gather_rows(caches, chosen, world.device)
        targets = region_targets(masks, recipe.regions)
        with autocast(amp, world.device):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        totals += _sums(losses.compute(recipe.loss, logits, targets), logits, targets)
    return dict(zip(_NAMES, (world.sum(totals) / len(rows)).tolist(), strict=True))


def _sums(terms: losses.LossTerms, logits: Tensor, targets: Tensor) -> Tensor:
    """(4,) float64: sums over samples of loss, BCE, IoU loss, and IoU (mean over regions)."""
    ious = iou_from_counts(*overlap_counts(logits >= 0, targets)).mean(dim=1)
    parts = (terms.total, terms.bce, terms.iou_loss, ious)
    return torch.stack([part.detach().double().sum() for part in parts])


def _reason_to_stop(
    job: TrainJob, epoch: int, num_worse: int, started: float, epoch_started: float, now: float
) -> str:
    """Why no further epoch is begun, "" for none."""
    if epoch + 1 == job.recipe.epochs:
        return f"all {job.recipe.epochs} epochs done"
    if job.recipe.patience and num_worse >= job.recipe.patience:
        return f"no better validation IoU loss for {num_worse} epochs (patience)"
    if job.max_minutes and now - started + (now - epoch_started) > 60 * job.max_minutes:
        return f"another epoch would pass --max-minutes {job.max_minutes:g}"
    return ""


def _check_rows(
    train_rows: RowSet, val_rows: RowSet, caches: Sequence[Cache], recipe: Recipe, say: Listener
) -> None:
    if not len(train_rows):
        names = ", ".join(str(cache.path) for cache in caches)
        raise BratsError(f"{names}: no training rows (rows={recipe.rows}). Look with brats info.")
    if not len(val_rows):
        say("Warning: no validation rows; the best checkpoint is chosen by the training loss.")
    unknown = {
        cache.scheme(index).name
        for cache in caches
        for index in range(len(cache.cases))
        if cache.cases["has_mask"][index]
        and not set(recipe.regions) <= set(cache.scheme(index).regions)
    }
    if unknown:
        raise BratsError(
            f"--target {recipe.target}: masks of the scheme {', '.join(sorted(unknown))} do not "
            "know these regions. Use --target wt."
        )


def _set_up_torch(device: torch.device) -> None:
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def _common_scheme(caches: Sequence[Cache]) -> str:
    """The label scheme of the first case that has a mask."""
    for cache in caches:
        for index in np.flatnonzero(cache.cases["has_mask"]):
            return cache.scheme(int(index)).name
    raise BratsError(f"{caches[0].path}: no case has a mask, so there is nothing to learn.")


def _describe(
    job: TrainJob,
    world: World,
    caches: Sequence[Cache],
    amp: str,
    weights_from: str,
    train_rows: RowSet,
    val_rows: RowSet,
) -> dict[str, Any]:
    """Everything that decides the run, for config.json."""
    return {
        "recipe_name": job.recipe_name,
        "recipe": recipe_to_dict(job.recipe),
        "caches": [
            {"path": str(cache.path.resolve()), "fingerprint": cache.fingerprint}
            for cache in caches
        ],
        "fold": job.fold,
        "max_minutes": job.max_minutes,
        "amp": amp,
        "device": str(world.device),
        "world_size": world.size,
        "encoder_weights_from": weights_from,
        "num_train_rows": len(train_rows),
        "num_val_rows": len(val_rows),
        "versions": {
            "brats": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    }


def _epoch_line(row: dict[str, float], num_epochs: int, is_best: bool) -> str:
    mark = "  best" if is_best else ""
    return (
        f"epoch {row['epoch']:>3}/{num_epochs}  loss {row['train_loss']:.4f}  "
        f"val iou {row['val_iou']:.4f}  val loss {row['val_loss']:.4f}  "
        f"{row['slices_per_s']:.1f} slices/s  wait {row['wait_pct']:.1f} %{mark}"
    )
