"""The commands that need torch: train, eval, predict, report, demo."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from brats_cache.errors import BratsError
from brats_cache.progress import show_progress
from brats_cache.workers import usable_cores

__all__ = ["demo", "evaluate", "predict", "report", "train"]

DEFAULT_CACHE = Path("data/brats.h5")
_PATH = click.Path(path_type=Path)


@click.command("train")
@click.option(
    "--cache",
    "caches",
    multiple=True,
    type=_PATH,
    help="Cache file, repeatable.  [default: data/brats.h5]",
)
@click.option(  # torchrun of Python 3.11 takes --run for its own --run-path; --run-dir passes
    "--run",
    "--run-dir",
    "run_dir",
    type=_PATH,
    help="Folder of the run.  [default: runs/RECIPE-TIME]",
)
@click.option("--recipe", default="paper", show_default=True, help="paper, strong, or a TOML file.")
@click.option("--target", type=click.Choice(["wt", "regions"]), help="Whole tumour, or WT, TC, ET.")
@click.option("--epochs", type=click.IntRange(1), help="At most so many.")
@click.option("--max-minutes", type=float, default=0.0, help="Stop before this time is over.")
@click.option("--batch-size", type=click.IntRange(1), help="Samples of a step, over all ranks.")
@click.option("--lr", type=float, help="Learning rate.")
@click.option("--loss", help="bce+iou, bce+dice, dice, iou, bce, focal+dice, tversky.")
@click.option("--patience", type=click.IntRange(0), help="Epochs without progress; 0: for ever.")
@click.option("--fold", type=click.IntRange(0), help="This fold validates, the others train.")
@click.option("--encoder-weights", help="imagenet, none, or a file.")
@click.option("--amp", type=click.Choice(["auto", "bf16", "fp16", "off"]), help="Mixed precision.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--seed", type=int, help="Decides first weights, order and augmentation.")
@click.option(
    "--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any field of the recipe."
)
@click.option("--nproc", type=click.IntRange(1), help="Start so many processes with torchrun.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is in --run.")
def train(
    caches: tuple[Path, ...],
    run_dir: Path | None,
    recipe: str,
    max_minutes: float,
    fold: int | None,
    device: str,
    settings: tuple[str, ...],
    nproc: int | None,
    overwrite: bool,
    **fields: Any,
) -> None:
    """Train the U-Net on a cache.

    Alone it is one process; `torchrun brats train` or --nproc makes it several, one a GPU.
    """
    if nproc is not None and "LOCAL_RANK" not in os.environ:
        _start_processes(nproc)
    from . import train as training
    from .distributed import joined
    from .recipes import change, load_recipe
    from .run_dir import RunDir

    names = {"loss": "loss.name"}
    given = [
        f"{names.get(name, name)}={value}" for name, value in fields.items() if value is not None
    ]
    job = training.TrainJob(
        cache_paths=caches or (DEFAULT_CACHE,),
        recipe_name=recipe,
        recipe=change(load_recipe(recipe), [*given, *settings]),
        fold=fold,
        max_minutes=max_minutes,
    )
    training.open_caches(job.cache_paths)  # a wrong name is told before processes are joined
    with joined(device) as world:
        path = world.share(RunDir.new(run_dir, recipe, overwrite).path if world.is_main else None)
        assert path is not None
        run = RunDir(path)
        if world.is_main:
            click.echo(f"Run: {run.path}")
        training.train(job, world, run, say=lambda text: click.echo(text))
        if world.is_main:
            run.make_latest()
            click.echo("Next: brats eval --split val")


def _start_processes(nproc: int) -> None:
    """Replaces this process by torchrun with `nproc` workers on this machine; does not return."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={nproc}", "-m", "--", "brats_train", *sys.argv[1:]]
    root = str(Path(__file__).resolve().parent.parent)  # a checkout need not be installed
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    threads = str(max(1, usable_cores() // nproc))
    environment = {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONPATH": search}
    os.execve(sys.executable, command, environment)


@click.command("eval")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="Which cases, as the run's config means it.",
)
@click.option(
    "--run",
    "--run-dir",
    "run_dirs",
    multiple=True,
    type=_PATH,
    help="Run folder; several are averaged.",
)
@click.option(
    "--cache", "caches", multiple=True, type=_PATH, help="Instead of the run's own caches."
)
@click.option("--checkpoint", default="best", show_default=True, help="best, last, or a file.")
@click.option("--tta/--no-tta", default=False, help="Average over flips.")
@click.option("--threshold", type=float, help="Instead of the checkpoint's own.")
@click.option(
    "--empty",
    type=click.Choice(["official", "nan"]),
    default="official",
    show_default=True,
    help="Rule for empty masks.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def evaluate(
    split: str,
    run_dirs: tuple[Path, ...],
    caches: tuple[Path, ...],
    checkpoint: str,
    tta: bool,
    threshold: float | None,
    empty: str,
    device: str,
    as_json: bool,
) -> None:
    """Score a run on a split: by case on the scan's own grid, and by slice.

    Writes eval/SPLIT/summary.json and cases.csv into the run.
    """
    import json

    from . import evaluate as evaluation
    from .distributed import joined
    from .inference import load_ensemble
    from .recipes import recipe_from_dict
    from .run_dir import RunDir
    from .train import open_caches

    runs = [RunDir.existing(path) for path in run_dirs or (None,)]
    config = runs[0].read_config()
    paths = caches or tuple(Path(cache["path"]) for cache in config["caches"])
    opened = open_caches(paths)
    with joined(device) as world:
        ensemble = load_ensemble([_checkpoint_path(run, checkpoint) for run in runs], world.device)
        _check_same_pixels(opened, ensemble)
        job = evaluation.EvaluationJob(
            split=split,
            rows=recipe_from_dict(config["recipe"]).rows,
            fold=config["fold"],
            tta=tta,
            threshold=ensemble.segmenter.threshold if threshold is None else threshold,
            empty=empty,
        )
        with show_progress("Scoring", "cases") as progress:
            report = progress if world.is_main else _silence
            result = evaluation.evaluate(job, opened, ensemble, world, report)
        if not world.is_main:
            return
        folder = runs[0].path / "eval" / split
        evaluation.write_evaluation(result, folder)
        if as_json:
            click.echo(json.dumps(evaluation.strict_json(result.summary), indent=2))
        else:
            click.echo(evaluation.describe(result))
            click.echo(f"{folder}/summary.json and cases.csv")


@click.command("predict")
@click.argument("cases", nargs=-1, required=True, type=_PATH)
@click.option(
    "--run",
    "--run-dir",
    "run_dirs",
    multiple=True,
    type=_PATH,
    help="Run folder; several are averaged.",
)
@click.option("--checkpoint", default="best", show_default=True, help="best, last, or a file.")
@click.option(
    "--out",
    "out_dir",
    type=_PATH,
    default=Path("predictions"),
    show_default=True,
    help="Folder for the masks.",
)
@click.option("--tta/--no-tta", default=False, help="Average over flips.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--overwrite", is_flag=True, help="Replace masks that exist.")
def predict(
    cases: tuple[Path, ...],
    run_dirs: tuple[Path, ...],
    checkpoint: str,
    out_dir: Path,
    tta: bool,
    device: str,
    overwrite: bool,
) -> None:
    """Segment CASEs: case folders, or a folder of them.

    Writes one CASE.nii.gz each, on the scan's own grid, into --out.
    """
    from . import predict as prediction
    from .distributed import joined
    from .inference import load_ensemble
    from .run_dir import RunDir

    runs = [RunDir.existing(path) for path in run_dirs or (None,)]
    with joined(device) as world:
        ensemble = load_ensemble([_checkpoint_path(run, checkpoint) for run in runs], world.device)
        job = prediction.PredictionJob(data=cases, out_dir=out_dir, tta=tta, overwrite=overwrite)
        with show_progress("Segmenting", "cases") as progress:
            written = prediction.predict(job, ensemble, progress)
    click.echo(f"{len(written)} masks in {out_dir}")


@click.command("report")
@click.option(
    "--run", "--run-dir", "run_dir", type=_PATH, help="Run folder.  [default: runs/latest]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def report(run_dir: Path | None, device: str) -> None:
    """Draw a run's figures: curves, and validation cases with truth and prediction."""
    from .distributed import joined
    from .inference import load_ensemble
    from .run_dir import RunDir
    from .train import open_caches

    run = RunDir.existing(run_dir)
    caches = open_caches([Path(cache["path"]) for cache in run.read_config()["caches"]])
    with joined(device) as world:
        ensemble = load_ensemble([run.best], world.device)
        for path in _draw(run, caches, ensemble):
            click.echo(str(path))


@click.command("demo")
@click.option(
    "--out", type=_PATH, default=Path("demo"), show_default=True, help="Folder for everything."
)
@click.option("--cases", default=12, show_default=True, help="Synthetic cases to learn from.")
@click.option("--minutes", default=1.5, show_default=True, help="Of training, at most.")
def demo(out: Path, cases: int, minutes: float) -> None:
    """The whole way on synthetic cases: cache, training, scores, masks, figures.

    Replaces an earlier demo in the same folder.
    """
    from .demo import run_demo

    run_demo(out, num_cases=cases, max_minutes=minutes)


def _checkpoint_path(run: Any, checkpoint: str) -> Path:
    named: dict[str, Path] = {"best": run.best, "last": run.last}
    return named.get(checkpoint, Path(checkpoint))


def _check_same_pixels(caches: Sequence[Any], ensemble: Any) -> None:
    if caches[0].preparation != ensemble.segmenter.preparation:
        raise BratsError(
            f"{caches[0].path}: its pixels were prepared differently from those the model was "
            f"trained on: {caches[0].preparation}, not {ensemble.segmenter.preparation}."
        )


def _draw(run: Any, caches: Sequence[Any], ensemble: Any) -> list[Path]:
    """Draws every figure a run allows so far; returns the files."""
    from . import report as figures

    written = [run.figures / "curves.png"]
    figures.save_figure(figures.draw_curves(run), written[0])
    names = _validation_cases(run, caches)[:4]
    if names:
        panels = figures.widest_slices(caches, names, ensemble)
        written.append(run.figures / "panels.png")
        figures.save_figure(figures.draw_panels(panels), written[-1])
    return written


def _validation_cases(run: Any, caches: Sequence[Any]) -> list[str]:
    from .loader import case_splits

    fold = run.read_config()["fold"]
    return [
        name.decode()
        for cache in caches
        for name in cache.cases["id"][case_splits(cache, fold) == "val"]
    ]


def _silence(done: int, total: int) -> None:
    """Progress of a rank that does not speak."""
