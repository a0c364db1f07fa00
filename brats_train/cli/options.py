"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

__all__ = [
    "PATH",
    "checkpoint_option",
    "checkpoint_paths",
    "device_option",
    "no_progress",
    "open_run_caches",
    "run_option",
    "tta_option",
]

PATH = click.Path(path_type=Path)
run_option = click.option(
    "--run",
    "--run-dir",
    "run_dirs",
    multiple=True,
    type=PATH,
    help="Run folder; several are averaged.  [default: runs/latest]",
)
checkpoint_option = click.option(
    "--checkpoint", default="best", show_default=True, help="best, last, or a file."
)
tta_option = click.option(
    "--tta/--no-tta", default=None, help="Average over flips.  [default: as trained]"
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)


def checkpoint_paths(runs: Sequence[Any], checkpoint: str) -> dict[int | None, list[Path]]:
    """The checkpoint files to use, by fold; under None those of ordinary runs.

    Args:
        runs: `RunDir` values; of several the probabilities are averaged.
        checkpoint: "best" or "last" of each run, or a file.

    Raises:
        BratsError: Some of the runs are cross-validated and others are not, or their folds differ.
    """
    from brats_cache.common.errors import BratsError
    from brats_train.models.run_files import checkpoints_of

    if checkpoint not in ("best", "last"):
        return {None: [Path(checkpoint)]}
    by_run = [checkpoints_of(run.path, checkpoint) for run in runs]
    for run, found in zip(runs, by_run, strict=True):
        if set(found) != set(by_run[0]):
            raise BratsError(
                f"{runs[0].path} and {run.path} cannot be averaged: they have other folds. Name "
                "single runs, such as their fold folders."
            )
    return {fold: [found[fold] for found in by_run] for fold in by_run[0]}


def open_run_caches(config: Mapping[str, Any] | None, given: Sequence[Path]) -> list[Any]:
    """Opens the caches to score on: those given, else the run's own.

    A cache that was moved is known by its fingerprint. Another one may be used, and is named, for
    its cases need not be those that the run kept for validation.

    Args:
        config: What config.json of the run holds, None without a run.
        given: The paths of --cache.

    Returns:
        `Cache` values.

    Raises:
        CacheNotFoundError: A cache is not where it was, or not where it is said to be.
    """
    from brats_cache.common.errors import CacheNotFoundError, print_message, printable
    from brats_cache.format.cache_set import open_caches

    own = {Path(one["path"]): one["fingerprint"] for one in config["caches"]} if config else {}
    if not given and (gone := [path for path in own if not path.exists()]):
        raise CacheNotFoundError(
            f"{printable(gone[0])}: the run's cache is not there any more. If it was moved, name "
            "its new place with --cache."
        )
    caches = open_caches(given or list(own))
    others = [cache for cache in caches if own and cache.fingerprint not in own.values()]
    if others and os.environ.get("RANK", "0") == "0":
        print_message(
            f"{printable(others[0].path)}: not the cache that the run was trained on (fingerprint "
            f"{others[0].fingerprint}, not {' or '.join(own.values())}). Its cases may be among "
            "those that the model was trained on.",
            prefix="Warning: ",
        )
    return caches


def no_progress() -> Any:
    """The progress of a rank that does not print."""
    import contextlib

    return contextlib.nullcontext(lambda done, total: None)
