"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

__all__ = [
    "PATH",
    "checkpoint_option",
    "checkpoint_paths",
    "device_option",
    "no_progress",
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


def checkpoint_paths(runs: Sequence[Any], checkpoint: str) -> list[Path]:
    if checkpoint not in ("best", "last"):
        return [Path(checkpoint)]
    return [run.best if checkpoint == "best" else run.last for run in runs]


def no_progress() -> Any:
    """The progress of a rank that does not speak."""
    import contextlib

    return contextlib.nullcontext(lambda done, total: None)
