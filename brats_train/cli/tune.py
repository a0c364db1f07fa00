"""The command `brats tune`: its own options, and those of `brats train` for every trial."""

from __future__ import annotations

import copy
import importlib.util
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from brats_cache.common.errors import BratsError
from brats_train.cli.options import PATH, say_loading
from brats_train.cli.train import given_settings, make_job, train

__all__ = ["tune"]

_LIBRARIES = ("optuna", "tomli_w")
# Of train's options, those that a trial does not leave to the person.
_NOT_FOR_TRIALS = ("run_dir", "resume", "overwrite", "dry_run", "debug")


def _trial_options() -> list[click.Option]:
    """Options of `brats train`, as options of this command."""
    options = [one for one in train.params if isinstance(one, click.Option)]
    return [copy.copy(one) for one in options if one.name not in _NOT_FOR_TRIALS]


@click.command("tune", params=[])
@click.option(
    "--trials",
    "num_trials",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Finished trials that the study has in the end, over all its processes.",
)
@click.option(
    "--space", type=PATH, help="TOML file of the fields to search.  [default: see docs/tuning.md]"
)
@click.option(
    "--study",
    type=PATH,
    default=Path("runs/tune"),
    show_default=True,
    help="Folder of the study, whose last part is its name.",
)
@click.option(
    "--storage",
    metavar="URL",
    help="Database that machines share, as sqlite:///FILE.  [default: a file in --study]",
)
@click.option(
    "--out", type=PATH, help="TOML file for the best recipe.  [default: best.toml in --study]"
)
def tune(
    num_trials: int,
    space: Path | None,
    study: Path,
    storage: str | None,
    out: Path | None,
    **options: Any,
) -> None:
    """Search for better hyper-parameters, each trial a short training.

    Takes the options of brats train for every trial; one that names a field of the space fixes it.
    The same command typed again goes on until the study has --trials; typed several times at once,
    on one machine or on several, the processes share the study.
    """
    if "LOCAL_RANK" in os.environ:
        raise BratsError(
            "brats tune starts a process for each trial itself, so it runs without torchrun. With "
            "--nproc N every trial has N processes."
        )
    if missing := [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]:
        raise BratsError(
            f"brats tune: {missing[0]} is not installed. Install it: pip install -e '.[tune]' in "
            "the checkout."
        )
    say_loading()
    from brats_train.tuning import search
    from brats_train.tuning.space import load_space

    job = make_job(options, None)
    fixed = [setting.partition("=")[0].strip() for setting in given_settings(options)]
    words = _given_words(click.get_current_context())
    best_path = out or study / "best.toml"
    done = search.tune(
        search.TuneJob(
            folder=study,
            storage=storage,
            space=load_space(space, job.recipe, fixed),
            train=job,
            train_words=words,
            num_trials=num_trials,
            out=best_path,
        ),
        click.echo,
    )
    if done.is_interrupted:
        click.echo(
            f"Interrupted and saved: {done.num_finished} of {num_trials} trials are finished. Go "
            "on with the same command."
        )
        sys.exit(130)
    if done.num_elsewhere:
        click.echo(f"{done.num_elsewhere} more trials are running on other machines.")
    click.echo(f"Report: {study / search.PAGE}")
    if done.best is None:
        raise BratsError(
            f"{study}: none of the {done.num_finished} trials was completed; their reasons are in "
            "the report."
        )
    click.echo(
        f"Best: trial {done.best.number}, val iou {done.best.value:.4f} of {done.num_finished} "
        f"trials: {best_path}"
    )
    caches = "".join(f" --cache {shlex.quote(str(path))}" for path in options["caches"])
    click.echo(f"Next: brats train --recipe {shlex.quote(str(best_path))}{caches}")


def _given_words(context: click.Context) -> Sequence[str]:
    """The options of `brats train` that were given, as words for the command line of a trial."""
    words: list[str] = []
    for option in _trial_options():
        assert option.name is not None
        source = context.get_parameter_source(option.name)
        if option.name == "recipe" or source is ParameterSource.DEFAULT:
            continue
        value = context.params[option.name]
        if option.is_flag:
            words += [option.opts[-1]] if value else []
            continue
        for one in value if option.multiple else (value,):
            words += [option.opts[-1], str(one)]
    return words


tune.params += _trial_options()
