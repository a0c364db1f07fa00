"""The command `brats eval`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from brats_cache.common.errors import BratsError
from brats_cache.common.progress import show_progress
from brats_train.cli.options import (
    PATH,
    checkpoint_option,
    device_option,
    model_sources,
    no_progress,
    open_run_caches,
    run_option,
    tta_option,
)

__all__ = ["evaluate"]


@click.command("eval")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="Which cases, as the run's config means it.",
)
@run_option
@click.option(
    "--cache",
    "caches",
    multiple=True,
    type=PATH,
    help="The run's cache where it lies now.",
)
@checkpoint_option
@tta_option
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
    type=PATH,
    metavar="DIR",
    help="Score the masks in DIR, CASE.nii.gz or CASE.nii, made by any tool.",
)
@device_option
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
    from brats_train.evaluation import evaluate as evaluation
    from brats_train.evaluation.summary import describe, to_json
    from brats_train.training.trained_on import results_home, trained_on

    if len(run_dirs) > 1 and checkpoint not in ("best", "last"):
        raise click.UsageError(
            "--checkpoint FILE is one model: name one --run, which says what to score."
        )
    needs_run = predictions is None or run_dirs or not caches
    runs = model_sources(run_dirs, "best") if needs_run else []
    trained = trained_on(runs[0]) if runs else None
    job = evaluation.EvaluationJob(
        split=split,
        rows=trained.rows if trained else "all",
        fold=trained.fold if trained else None,
        empty=empty,  # type: ignore[arg-type]
        tta=tta,
        threshold=threshold,
    )
    opened = open_run_caches(trained, caches)
    if predictions is None:
        folder = results_home(runs[0]) / "eval" / split
        sources = runs if checkpoint in ("best", "last") else [Path(checkpoint)]
        result = _score_models(job, opened, sources, checkpoint, device, folder, save_masks)
    else:
        _refuse_with_predictions(tta=tta, threshold=threshold, save_masks=save_masks)
        folder = (results_home(runs[0]) if runs else predictions) / "eval" / split
        regions = trained.regions if trained else ("wt", "tc", "et")
        result = _score_files(job, opened, regions, predictions, folder)
    if result is None:
        return
    if as_json:
        click.echo(to_json(result.summary), nl=False)
    else:
        click.echo(describe(result.cases, result.summary))
        click.echo(f"\n{folder}/summary.json and cases.csv")


def _score_models(
    job: Any,
    caches: Sequence[Any],
    sources: Sequence[Path],
    checkpoint: str,
    device: str,
    folder: Path,
    save_masks: bool,
) -> Any:
    """The evaluation, already written; None on a rank that does not print."""
    from brats_train.evaluation import evaluate as evaluation
    from brats_train.evaluation.publish import publish_evaluation, scratch_masks
    from brats_train.inference.case_models import load_case_models
    from brats_train.runtime.distributed import process_group, same_error_on_all_ranks

    with process_group(device) as world, contextlib.ExitStack() as stack:
        with same_error_on_all_ranks():
            models = load_case_models(sources, world.device, checkpoint=checkpoint)
            _check_same_pixels(caches, models)
        world.decide_on_main(lambda: stack.enter_context(_locked(folder)))
        progress = show_progress("Scoring", "cases") if world.is_main else no_progress()
        masks = stack.enter_context(scratch_masks(folder, world)) if save_masks else None
        with progress as report:
            result = evaluation.evaluate(job, caches, models, world, report, masks)
        if world.is_main:
            publish_evaluation(result, folder, masks)
        return result if world.is_main else None


def _score_files(
    job: Any, caches: Sequence[Any], regions: Sequence[str], masks: Path, folder: Path
) -> Any:
    """The evaluation, already written; None on a rank that does not print."""
    from brats_train.evaluation import evaluate as evaluation
    from brats_train.evaluation.publish import publish_evaluation
    from brats_train.runtime.distributed import process_group

    with process_group("cpu") as world, contextlib.ExitStack() as stack:
        if folder.parent.parent.is_dir():  # if not, scoring says so
            world.decide_on_main(lambda: stack.enter_context(_locked(folder)))
        progress = show_progress("Scoring", "cases") if world.is_main else no_progress()
        with progress as report:
            result = evaluation.evaluate_files(job, regions, masks, caches, world, report)
        if world.is_main:
            publish_evaluation(result, folder)
        return result if world.is_main else None


def _locked(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Holds the run, or the folder of predictions, whose eval/SPLIT `folder` is."""
    from brats_train.training.run_dir import RunDir

    home = folder.parent.parent
    with contextlib.suppress(OSError):  # the lock says so
        home.mkdir(parents=True, exist_ok=True)  # that of a model on the hub
    return RunDir(home).locked("brats eval")


def _check_same_pixels(caches: Sequence[Any], models: Any) -> None:
    if caches[0].preparation != models.spec.preparation:
        raise BratsError(
            f"{caches[0].path}: its pixels were prepared differently from those the model was "
            f"trained on: {caches[0].preparation}, not {models.spec.preparation}."
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
