"""Options that several commands share."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from brats_cache.format.reader import Cache
    from brats_train.training.trained_on import TrainedOn

    Mode = click.ParamType[bool | str]
else:
    Mode = click.ParamType  # click 8.1 has no generic class

__all__ = [
    "PATH",
    "FiniteRange",
    "check_still_there",
    "checkpoint_option",
    "compile_option",
    "device_option",
    "model_sources",
    "open_run_caches",
    "run_option",
    "say_loading",
    "tta_option",
    "warn_damaged",
]


class _Sources(click.Path):
    """Paths, and models on the hub."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Parts a variable at its colons, except the one of hf://."""
        return re.findall(r"hf://[^:]+|[^:]+", rv)


PATH = click.Path(path_type=Path)
run_option = click.option(
    "--run",
    "--run-dir",
    "run_dirs",
    multiple=True,
    type=_Sources(path_type=Path),
    help="Run, exported model or hf://OWNER/NAME; several are averaged.  [default: runs/latest]",
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


class FiniteRange(click.FloatRange):
    """A range of numbers; click's own lets NaN through, and infinity where an end is open."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class _CompileMode(Mode):
    """A `CompileMode`: what a flag may be in the environment, or the name of a mode."""

    name = "mode"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> bool | str:
        if value in (True, False, "reduce-overhead"):
            return value
        try:
            return click.BOOL.convert(value, param, context)
        except click.BadParameter:
            self.fail(f"{value!r} is not reduce-overhead, the one mode.", param, context)


def compile_option(text: str) -> Callable[[Any], Any]:
    """The option --compile, alone or with a mode; `text` is its help."""
    return click.option(
        "--compile",
        "compile_mode",
        type=_CompileMode(),
        is_flag=False,
        flag_value=True,
        default=False,
        metavar="[reduce-overhead]",
        help=text,
    )


def model_sources(run_dirs: Sequence[Path], checkpoint: str) -> list[Path]:
    """The models that --run and --checkpoint name, as `models.sources.load_models` takes them.

    Args:
        run_dirs: Of --run; none means runs/latest.
        checkpoint: "best" or "last" of each run, or a model by itself.

    Raises:
        RunNotFoundError: A folder holds neither a run nor an exported model.
    """
    from brats_train.models.sources import is_run_dir
    from brats_train.training.run_dir import RunDir

    if checkpoint not in ("best", "last"):
        return [Path(checkpoint)]
    if not run_dirs:
        return [RunDir.existing(None).path]
    return [RunDir.existing(path).path if is_run_dir(path) else path for path in run_dirs]


def open_run_caches(trained: TrainedOn | None, given: Sequence[Path]) -> list[Cache]:
    """Opens the caches to score on: those given, else the run's own.

    A cache that was moved is known by its fingerprint. Another one may be used, and is named, for
    its cases need not be those that the run kept for validation.

    Args:
        trained: What the model was trained on, None without a model.
        given: The paths of --cache.

    Raises:
        CacheNotFoundError: A cache is not where it was, or not where it is said to be.
    """
    from brats_cache.common.errors import CacheNotFoundError, print_message, printable
    from brats_cache.format.cache_set import open_caches

    own = trained.caches if trained else ()
    paths = [path for _, path in own if path is not None]
    fingerprints = [fingerprint for fingerprint, _ in own]
    if not given and trained and (not own or len(paths) < len(own)):
        raise CacheNotFoundError(
            "an exported model does not say where the cache lies that it was trained on. Name it, "
            "or another, with --cache."
        )
    if not given:
        check_still_there(paths)
    by_fold = trained is not None and trained.fold is not None
    caches = open_caches(given or paths, same_modalities=False, by_fold=by_fold)
    others = [cache for cache in caches if own and cache.fingerprint not in fingerprints]
    if others and os.environ.get("RANK", "0") == "0":
        print_message(
            f"{printable(others[0].path)}: not the cache that the run was trained on (fingerprint "
            f"{others[0].fingerprint}, not {' or '.join(fingerprints)}). Its cases may be among "
            "those that the model was trained on.",
            prefix="Warning: ",
        )
    return caches


def say_loading() -> None:
    """Says on a terminal why nothing happens for seconds: torch is about to be imported."""
    is_first = "torch" not in sys.modules and os.environ.get("RANK", "0") == "0"
    if is_first and sys.stderr.isatty():
        click.echo("Loading PyTorch ...", err=True)


def check_still_there(paths: Sequence[Path]) -> None:
    """Raises `CacheNotFoundError` where a run's own cache is not where it was."""
    from brats_cache.common.errors import CacheNotFoundError, printable

    if gone := [path for path in paths if not path.exists()]:
        raise CacheNotFoundError(
            f"{printable(gone[0])}: the run's cache is not there any more. If it was moved, name "
            "its new place with --cache."
        )


def warn_damaged(text: str) -> None:
    """Prints a warning of a `MaskStore`."""
    from brats_cache.common.errors import print_message, printable

    print_message(printable(text), prefix="Warning: ")
