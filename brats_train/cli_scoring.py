"""The commands `brats eval` and `brats predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from brats_cache.errors import BratsError, printable, tell
from brats_cache.progress import show_progress

__all__ = ["evaluate", "predict"]

_PATH = click.Path(path_type=Path)
_RUNS = click.option(
    "--run",
    "--run-dir",
    "run_dirs",
    multiple=True,
    type=_PATH,
    help="Run folder; several are averaged.  [default: runs/latest]",
)
_CHECKPOINT = click.option(
    "--checkpoint", default="best", show_default=True, help="best, last, or a file."
)
_TTA = click.option(
    "--tta/--no-tta", default=None, help="Average over flips.  [default: as trained]"
)
_DEVICE = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)


@click.command("eval")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="Which cases, as the run's config means it.",
)
@_RUNS
@click.option(
    "--cache", "caches", multiple=True, type=_PATH, help="Instead of the run's own caches."
)
@_CHECKPOINT
@_TTA
@click.option(
    "--threshold", type=click.FloatRange(0, 1), help="Instead of the one chosen in training."
)
@click.option(
    "--empty",
    type=click.Choice(["official", "nan"]),
    default="official",
    show_default=True,
    help="Rule for empty masks.",
)
@click.option("--save-masks", is_flag=True, help="Write the predicted masks as well.")
@click.option(
    "--predictions",
    type=_PATH,
    metavar="DIR",
    help="Score the masks in DIR, CASE.nii.gz or CASE.nii, made by any tool.",
)
@_DEVICE
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def evaluate(
    split: str,
    run_dirs: tuple[Path, ...],
    caches: tuple[Path, ...],
    checkpoint: str,
    tta: bool | None,
    threshold: float | None,
    empty: str,
    save_masks: bool,
    predictions: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Score a run on a split: by case on the scan's own grid, and by slice.

    Writes eval/SPLIT/summary.json and cases.csv (with --save-masks also masks/) into the run.
    --predictions scores masks instead, without a model; with --cache and without --run it writes
    eval/SPLIT into their folder.
    """
    from . import evaluate as evaluation
    from .recipes import recipe_from_dict
    from .rows import open_caches
    from .run_dir import RunDir

    needs_run = predictions is None or run_dirs or not caches
    runs = [RunDir.existing(path) for path in run_dirs or (None,)] if needs_run else []
    config = runs[0].read_config() if runs else None
    recipe = recipe_from_dict(config["recipe"]) if config else None
    job = evaluation.EvaluationJob(
        split=split,
        rows=recipe.rows if recipe else "all",
        fold=config["fold"] if config else None,
        empty=empty,  # type: ignore[arg-type]
        tta=tta,
        threshold=threshold,
    )
    own = tuple(Path(cache["path"]) for cache in config["caches"]) if config else ()
    opened = open_caches(caches or own)
    if predictions is None:
        folder = runs[0].path / "eval" / split
        paths = _checkpoints(runs, checkpoint)
        result = _score_models(job, opened, paths, device, folder, save_masks)
    else:
        _refuse_with_predictions(tta=tta, threshold=threshold, save_masks=save_masks)
        folder = (runs[0].path if runs else predictions) / "eval" / split
        regions = recipe.regions if recipe else ("wt", "tc", "et")
        result = _score_files(job, opened, regions, predictions, folder)
    if result is None:
        return
    if as_json:
        from .summary import to_json

        click.echo(to_json(result.summary), nl=False)
    else:
        click.echo(evaluation.describe(result.cases, result.summary))
        click.echo(f"\n{folder}/summary.json and cases.csv")


def _score_models(
    job: Any,
    caches: Sequence[Any],
    checkpoints: Sequence[Path],
    device: str,
    folder: Path,
    save_masks: bool,
) -> Any:
    """The evaluation, already written; None on a rank that does not speak."""
    import contextlib

    from . import evaluate as evaluation
    from .distributed import joined, told_once
    from .inference import load_ensemble

    with joined(device) as world:
        with told_once():
            ensemble = load_ensemble(checkpoints, world.device)
            _check_same_pixels(caches, ensemble)
        progress = show_progress("Scoring", "cases") if world.is_main else _silence()
        with contextlib.ExitStack() as stack:
            masks = None
            if save_masks:
                masks = stack.enter_context(evaluation.scratch_masks(folder, world))
            with progress as report:
                result = evaluation.evaluate(job, caches, ensemble, world, report, masks)
            if world.is_main:
                evaluation.publish_evaluation(result, folder, masks)
        return result if world.is_main else None


def _score_files(
    job: Any, caches: Sequence[Any], regions: Sequence[str], masks: Path, folder: Path
) -> Any:
    """The evaluation, already written; None on a rank that does not speak."""
    from . import evaluate as evaluation
    from .distributed import joined

    with joined("cpu") as world:
        progress = show_progress("Scoring", "cases") if world.is_main else _silence()
        with progress as report:
            result = evaluation.evaluate_files(job, regions, masks, caches, world, report)
        if world.is_main:
            evaluation.publish_evaluation(result, folder)
        return result if world.is_main else None


@click.command("predict")
@click.argument("cases", nargs=-1, required=True, type=_PATH)
@_RUNS
@_CHECKPOINT
@click.option(
    "--out",
    "out_dir",
    type=_PATH,
    default=Path("predictions"),
    show_default=True,
    help="Folder for the masks.",
)
@_TTA
@click.option("--probabilities", is_flag=True, help="Write CASE_prob.nii.gz as well.")
@_DEVICE
@click.option("--resume", is_flag=True, help="Keep masks that exist, make the others.")
@click.option("--overwrite", is_flag=True, help="Replace masks that exist.")
def predict(
    cases: tuple[Path, ...],
    run_dirs: tuple[Path, ...],
    checkpoint: str,
    out_dir: Path,
    tta: bool | None,
    probabilities: bool,
    device: str,
    resume: bool,
    overwrite: bool,
) -> None:
    """Segment CASEs: case folders, or a folder of them.

    Writes one CASE.nii.gz each, on the scan's own grid, into --out.
    """
    if resume and overwrite:
        raise click.UsageError("--resume keeps masks and --overwrite replaces them: choose one.")
    from . import predict as prediction
    from .distributed import joined, told_once
    from .inference import load_ensemble
    from .run_dir import RunDir

    needs_run = run_dirs or checkpoint in ("best", "last")
    runs = [RunDir.existing(path) for path in run_dirs or (None,)] if needs_run else []
    job = prediction.PredictionJob(
        data=cases,
        out_dir=out_dir,
        tta=tta,
        probabilities=probabilities,
        resume=resume,
        overwrite=overwrite,
    )
    with joined(device) as world:
        with told_once():
            ensemble = load_ensemble(_checkpoints(runs, checkpoint), world.device)
        progress = show_progress("Segmenting", "cases") if world.is_main else _silence()
        try:
            with progress as report:
                outcome = prediction.predict(job, ensemble, world, report)
        except KeyboardInterrupt:
            if world.is_main:
                click.echo(
                    f"Interrupted. Masks in {out_dir} are kept; go on with --resume.", err=True
                )
            raise
        if not world.is_main:
            return
    for note in outcome.notes:
        tell(printable(note), prefix="Note: ")
    kept = f" ({len(outcome.kept)} more were there)" if outcome.kept else ""
    click.echo(f"{len(outcome.written)} masks in {out_dir}{kept}")


def _checkpoints(runs: Sequence[Any], checkpoint: str) -> list[Path]:
    if checkpoint not in ("best", "last"):
        return [Path(checkpoint)]
    return [run.best if checkpoint == "best" else run.last for run in runs]


def _check_same_pixels(caches: Sequence[Any], ensemble: Any) -> None:
    if caches[0].preparation != ensemble.segmenter.preparation:
        raise BratsError(
            f"{caches[0].path}: its pixels were prepared differently from those the model was "
            f"trained on: {caches[0].preparation}, not {ensemble.segmenter.preparation}."
        )


def _refuse_with_predictions(
    *, tta: bool | None, threshold: float | None, save_masks: bool
) -> None:
    given = {"--tta": tta is not None, "--threshold": threshold is not None}
    given["--save-masks"] = save_masks
    for option, is_given in given.items():
        if is_given:
            raise click.UsageError(
                f"{option} is for a model; --predictions scores masks as they are."
            )


def _silence() -> Any:
    """The progress of a rank that does not speak."""
    import contextlib

    return contextlib.nullcontext(lambda done, total: None)
