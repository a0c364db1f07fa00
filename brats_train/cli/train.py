"""The command `brats train`: options to a job, one process or several, a new run or an old one."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from brats_cache.common.errors import BratsError, print_wrapped, printable
from brats_cache.common.process import module_environment, usable_cores
from brats_train.cli.options import PATH, FiniteRange, compile_option, say_loading

__all__ = ["given_settings", "make_job", "train"]

DEFAULT_CACHE = Path("data/brats.h5")
MAX_PROCESSES = 256  # no machine has more GPUs; a typing error would start them all


def _fold(context: click.Context, option: click.Parameter, value: str | None) -> int | str | None:
    """The number of a fold, or "all"."""
    if value is None or value == "all":
        return value
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither the number of a fold, from 0, nor all.")
    return int(value)


def _micro_batch(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """auto, or a number of samples as text."""
    if value is None or value == "auto" or (value.isdecimal() and int(value) > 0):
        return value
    raise click.BadParameter(f"{value!r} is neither auto nor a number of samples.")


@click.command("train")
@click.option(
    "--cache",
    "caches",
    multiple=True,
    type=PATH,
    help="Cache file, repeatable.  [default: data/brats.h5]",
)
@click.option(
    "--cache-weight",
    "cache_weights",
    multiple=True,
    type=float,
    help="How often its slices are taken, one for each --cache.  [default: 1]",
)
@click.option(  # torchrun of Python 3.11 takes --run for its own --run-path; --run-dir passes
    "--run",
    "--run-dir",
    "run_dir",
    type=PATH,
    help="Folder of the run.  [default: runs/RECIPE-TIME]",
)
@click.option("--recipe", help="paper, strong, or a TOML file.  [default: paper]")
@click.option("--target", type=click.Choice(["wt", "regions"]), help="Whole tumour, or WT, TC, ET.")
@click.option(
    "--classify",
    metavar="grade|CSV",
    help="Tell cases apart too: by grade, or by a CSV with the columns case and label.",
)
@click.option("--epochs", type=click.IntRange(1), help="At most so many.")
@click.option(
    "--max-minutes",
    type=FiniteRange(0),
    help="Fit the whole schedule into so many minutes; 0: no limit.",
)
@click.option(
    "--save-minutes",
    type=FiniteRange(0),
    help="Between two savings of the state that --resume needs.  [default: 5]",
)
@click.option("--batch-size", type=click.IntRange(1), help="Samples of a step, over all ranks.")
@click.option(
    "--micro-batch",
    callback=_micro_batch,
    help="auto, or the samples computed at once.  [default: auto]",
)
@click.option("--lr", type=float, help="Learning rate.")
@click.option("--loss", help="bce+iou, bce+dice, dice, iou, bce, focal+dice, tversky.")
@click.option("--patience", type=click.IntRange(0), help="Epochs without progress; 0: for ever.")
@click.option(
    "--fold",
    callback=_fold,
    metavar="K|all",
    help="Fold K validates, the others train; all: a model for each fold.",
)
@click.option("--encoder-weights", help="imagenet, none, or a file.")
@click.option(
    "--init-from",
    type=PATH,
    help="Start from a model: run, checkpoint or exported.",
)
@click.option("--amp", type=click.Choice(["auto", "bf16", "fp16", "off"]), help="Mixed precision.")
@click.option(
    "--resident",
    type=click.Choice(["auto", "never", "always"]),
    help="Keep the rows on the device.  [default: auto]",
)
@compile_option("torch.compile the model; reduce-overhead: replay CUDA graphs.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--seed", type=int, help="Decides first weights, order and augmentation.")
@click.option("--deterministic", is_flag=True, help="Equal runs give equal bytes, more slowly.")
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any field of the recipe."
)
@click.option(
    "--track",
    "trackers",
    multiple=True,
    type=click.Choice(["tensorboard", "mlflow"]),
    help="Record epochs there too.",
)
@click.option(
    "--allow-no-tumor", is_flag=True, help="Train even if no training slice holds a tumour."
)
@click.option("--resume", is_flag=True, help="Go on with --run where it ended, or begin it.")
@click.option(
    "--nproc", type=click.IntRange(1, MAX_PROCESSES), help="Start so many processes with torchrun."
)
@click.option("--dry-run", is_flag=True, help="Say what would be trained, memory and time.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in --run.")
def train(
    run_dir: Path | None,
    resume: bool,
    overwrite: bool,
    nproc: int | None,
    device: str,
    dry_run: bool,
    **options: Any,
) -> None:
    """Train the U-Net on a cache.

    Alone it is one process; `torchrun brats train` or --nproc makes it several, one a GPU. A run
    that was left goes on with --resume and its own settings.
    """
    if "LOCAL_RANK" not in os.environ:
        _check_caches(options["caches"], resume)
        if nproc is not None:
            _start_processes(nproc)
    say_loading()
    from brats_train.runtime.distributed import process_group
    from brats_train.training import folds, trainer
    from brats_train.training.run_dir import RunDir

    if dry_run:
        from brats_train.training.dry_run import describe_training

        with process_group(device) as world:
            say = click.echo if world.is_main else lambda text: None
            job, held = world.decide_on_main(lambda: _job_to_describe(run_dir, resume, options))
            describe_training(job, world, say, held)
        return

    with process_group(device) as world, ExitStack() as stack:
        # The main rank decides, so that all ranks do the same whatever each sees of the disk.
        path, job, is_resumed = world.decide_on_main(
            lambda: _choose_run(stack, run_dir, resume, overwrite, options)
        )
        run = RunDir(path)

        def log(text: str) -> None:
            if world.is_main:
                print_wrapped(text)

        def say(text: str) -> None:
            """Prints a line with a path or a command, which a person may copy."""
            if world.is_main:
                click.echo(text)

        name = shlex.quote(str(run.path))
        say(f"Run: {run.path}")
        train_it = folds.train_folds if job.fold == "all" else trainer.train
        started = click.get_current_context().obj  # None, or when the demo began it
        go_on = f"Go on with: brats train --resume --run-dir {name}"
        try:
            done = train_it(job, world, run, resume=is_resumed, log=log, started=started)
        except KeyboardInterrupt:  # not in training itself, which ends after a step
            if run.config.exists():
                say(f"Interrupted. {go_on}")
            raise
        if done.is_resumable:
            say(f"Interrupted and saved. {go_on}")
            sys.exit(130)
        best = f" Best epoch {done.best_epoch}: {run.best}" if job.fold != "all" else ""
        say(f"Finished: {done.reason}.{best}")
        following = "eval --split val" if done.is_validated else "predict SCANS --out masks"
        say(f"Next: brats {following} --run-dir {name}")


def _job_to_describe(
    run_dir: Path | None, resume: bool, options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any] | None]:
    """The job that training would begin or go on with, and the settings of the run that goes on."""
    run = _run_to_resume(run_dir, resume)
    held = run.read_config() if run else None
    return make_job(options, held), held


def _choose_run(
    stack: ExitStack,
    run_dir: Path | None,
    resume: bool,
    overwrite: bool,
    options: Mapping[str, Any],
) -> tuple[Path, Any, bool]:
    """Chooses the run directory and locks it until `stack` ends.

    Returns:
        The directory, the job, and whether the run goes on from its last.pt.
    """
    from brats_train.training.run_dir import RunDir

    run = _run_to_resume(run_dir, resume)
    if run is None:
        job = make_job(options, None)
        run = RunDir.new(run_dir, job.recipe_name)
        stack.enter_context(run.locked("brats train"))
        if not overwrite:
            run.check_vacant()
        return run.path, job, False
    stack.enter_context(run.locked("brats train"))
    job = make_job(options, run.read_config())
    has_checkpoint = job.fold == "all" or run.has_checkpoint()
    if not has_checkpoint:
        click.echo(f"{run.path}: ended before anything was saved; starts again with its settings.")
    return run.path, job, has_checkpoint


def _run_to_resume(run_dir: Path | None, resume: bool) -> Any:
    """The run to continue, None for a new one.

    When torchrun starts its processes again after a failure, they find the run that this torchrun
    began and continue it.
    """
    from brats_train.runtime.environment import launcher_id
    from brats_train.training.run_dir import RunDir

    if resume:
        if run_dir is None or RunDir(run_dir).config.exists():
            return RunDir.existing(run_dir)
        click.echo(f"{run_dir}: holds no run yet, so this is a new one.")
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)):
        try:
            run = RunDir.existing(run_dir)
        except BratsError:
            return None  # the failure came before the run began
        if run.read_config().get("launcher") == launcher_id():
            return run
    return None


def given_settings(options: Mapping[str, Any]) -> list[str]:
    """The fields of the recipe that the options name, as "FIELD=VALUE"."""
    fields = {
        "target": options["target"],
        "epochs": options["epochs"],
        "batch_size": options["batch_size"],
        "lr": options["lr"],
        "cache_weights": ",".join(map(str, options["cache_weights"])) or None,
        "loss.name": options["loss"],
        "patience": options["patience"],
        "encoder_weights": options["encoder_weights"],
        "amp": options["amp"],
        "seed": options["seed"],
    }
    given = [f"{field}={value}" for field, value in fields.items() if value is not None]
    return [*given, *options["settings"]]


def make_job(options: Mapping[str, Any], config: Mapping[str, Any] | None) -> Any:
    """The job that the options describe; what they leave open comes from `config`, the settings of
    a run that is resumed."""
    from brats_train.training.recipe import apply_settings, load_recipe, recipe_from_dict
    from brats_train.training.state import TrainJob

    held = config or {}
    name = options["recipe"] or held.get("recipe_name", "paper")
    if config and not options["recipe"]:
        recipe = recipe_from_dict(config["recipe"])
    else:
        recipe = load_recipe(name)

    def option(key: str, default: Any) -> Any:
        """What the command line says, else the run that is resumed, else the default."""
        value = options["compile_mode" if key == "compile" else key]
        is_given = value is not None and value is not False and value != ()  # 0 is given
        return value if is_given else held.get(key, default)

    init_from = option("init_from", None)
    return TrainJob(
        cache_paths=_cache_paths(options["caches"], held),
        recipe_name=name,
        recipe=apply_settings(recipe, given_settings(options)),
        classify=option("classify", None),
        labels={} if options["classify"] else held.get("labels") or {},
        fold=option("fold", None),
        max_minutes=option("max_minutes", 0.0),
        save_minutes=option("save_minutes", 5.0),
        micro_batch=str(option("micro_batch", "auto")),
        resident=option("resident", "auto"),
        init_from=Path(init_from) if init_from else None,
        compile=option("compile", False),
        deterministic=bool(option("deterministic", False)),
        trackers=tuple(option("trackers", ())),
        allow_no_tumor=options["allow_no_tumor"] or bool(held),  # it has been trained on before
    )


def _check_caches(given: tuple[Path, ...], resume: bool) -> None:
    """Says at once that a cache is missing: torch takes seconds to load, and a run's folder should
    not be made in vain. Raises `CacheNotFoundError`."""
    from brats_cache.format.reader import check_exists

    for path in given or (() if resume else (DEFAULT_CACHE,)):
        check_exists(path)


def _cache_paths(given: tuple[Path, ...], held: Mapping[str, Any]) -> tuple[Path, ...]:
    """The caches to train on. Raises `BratsError` where a resumed run's are no longer there."""
    if given or not held:
        return given or (DEFAULT_CACHE,)
    paths = tuple(Path(cache["path"]) for cache in held["caches"])
    if missing := [path for path in paths if not path.exists()]:
        raise BratsError(
            f"{printable(missing[0])}: the cache of this run is no longer there. If it was moved, "
            "say where it is: --resume --cache FILE."
        )
    return paths


def _start_processes(nproc: int) -> None:
    """Replaces this process by torchrun with `nproc` workers on this machine; does not return."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={nproc}", "-m", "--", "brats_train", *sys.argv[1:]]
    threads = str(max(1, usable_cores() // nproc))
    environment = {"OMP_NUM_THREADS": threads, **module_environment()}
    os.execve(sys.executable, command, environment)
