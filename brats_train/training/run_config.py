"""What a run writes into config.json, and what it says before its first step."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from brats_cache.format.reader import Cache
from brats_train.models.sources import absolute
from brats_train.runtime.distributed import World
from brats_train.runtime.environment import device_name, launcher_id, versions
from brats_train.training.recipe import recipe_to_dict
from brats_train.training.state import Progress, TrainJob
from brats_train.training.train_step import TrainStep

__all__ = ["PLACE", "introduction", "job_config", "resumed_job", "run_config"]

# Where a run goes on; a resumed run may do so elsewhere.
PLACE = ("caches", "torchrun_id", "launcher", "device", "amp", "world_size", "micro_batch")


def job_config(job: TrainJob, caches: Sequence[Cache]) -> dict[str, Any]:
    """What is known of a run before its model is made, as plain values for JSON."""
    return {
        "recipe_name": job.recipe_name,
        "recipe": recipe_to_dict(job.recipe),
        "caches": [
            {"path": str(cache.path.resolve()), "fingerprint": cache.fingerprint}
            for cache in caches
        ],
        "fold": job.fold,
        "classify": job.classify,
        "labels": dict(job.labels) or None,
        "init_from": absolute(job.init_from) if job.init_from else None,
        "deterministic": job.deterministic,
        "max_minutes": job.max_minutes,
        "save_minutes": job.save_minutes,
        "resident": job.resident,
        "compile": job.compile,
        "trackers": list(job.trackers),
        "micro_batch": job.micro_batch,
        "amp": job.recipe.amp,
        "torchrun_id": os.environ.get("TORCHELASTIC_RUN_ID"),
        "launcher": launcher_id(),
        "versions": versions(),
    }


def run_config(
    job: TrainJob,
    world: World,
    caches: Sequence[Cache],
    train_step: TrainStep,
    *,
    num_train_rows: int,
    num_val_rows: int,
) -> dict[str, Any]:
    """Everything that decides the run, as plain values for JSON."""
    return {
        **job_config(job, caches),
        "micro_batch": train_step.micro_batch,
        "amp": train_step.amp,
        "device": device_name(world.device),
        "world_size": world.size,
        "encoder_weights_from": train_step.segmenter.weights_from,
        "num_train_rows": num_train_rows,
        "num_val_rows": num_val_rows,
    }


def resumed_job(job: TrainJob, held: Mapping[str, Any], world: World) -> TrainJob:
    """The job of a run that goes on, with as many samples at once as it has computed so far.

    On another number of processes a step's samples are shared out anew, and so is that number.

    Args:
        job: What was asked for; its `micro_batch` may be that of `held`.
        held: What config.json holds.
        world: This process among its peers.
    """
    micro_batch = str(held.get("micro_batch", "auto"))
    if held.get("world_size", world.size) != world.size:
        return replace(job, micro_batch="auto") if job.micro_batch == micro_batch else job
    return replace(job, micro_batch=micro_batch) if job.micro_batch == "auto" else job


def introduction(config: Mapping[str, Any], num_steps: int, progress: Progress) -> str:
    """What the main rank says before the first step.

    Args:
        config: As `run_config` gives it.
        num_steps: Steps of an epoch.
        progress: Where the run stands.
    """
    text = (
        f"{config['num_train_rows']} training and {config['num_val_rows']} validation slices, "
        f"{num_steps} steps an epoch, {config['world_size']} x {config['device']}, "
        f"amp {config['amp']}, encoder weights: {config['encoder_weights_from']}"
    )
    if progress.epoch or progress.step:
        text += f"\nGoing on at epoch {progress.epoch + 1}, step {progress.step}"
    return text
