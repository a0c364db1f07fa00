"""The command `brats eval`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from brats_cache.common.errors import BratsError, print_message, printable
from brats_cache.common.progress import show_progress
from brats_cache.common.text import first_few
from brats_cache.discovery.namings import MODALITIES
from brats_train.cli.options import (
    PATH,
    FiniteRange,
    checkpoint_option,
    device_option,
    model_sources,
    open_run_caches,
    run_option,
    say_loading,
    tta_option,
    warn_damaged,
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
@click.option("--threshold", type=FiniteRange(0, 1), help="Instead of the one chosen in training.")
@click.option(
    "--empty",
    type=click.Choice(["official", "nan"]),
    default="official",
    show_default=True,
    help="Rule for empty masks.",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(MODALITIES),
    help="Leave a modality out, repeatable; the model must be trained to do without.",
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
    without: tuple[str, ...],
    save_masks: bool,
    predictions: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Score a run on a split: by case on the scan's own grid, and by slice.

    Writes eval/SPLIT/summary.json and cases.csv (with --save-masks also masks/) into the run; with
    --without flair into eval/SPLIT-without-flair.
    --predictions scores masks instead, without a model; with --cache and without --run it writes
    eval/SPLIT into their folder.
    """
    if len(run_dirs) > 1 and checkpoint not in ("best", "last"):
        raise click.UsageError(
            "--checkpoint FILE is one model: name one --run, which says what to score."
        )
    say_loading()
    from brats_train.data.case_labels import grades_of
    from brats_train.evaluation import evaluate as evaluation
    from brats_train.evaluation.case_scores import hold_one_label
    from brats_train.evaluation.classification import describe_classes
    from brats_train.evaluation.summary import describe, to_json
    from brats_train.models.hub import hub_name
    from brats_train.training.leakage import check_unseen
    from brats_train.training.trained_on import results_home, trained_on

    needs_run = predictions is None or run_dirs or not caches
    runs = model_sources(run_dirs, "best") if needs_run else []
    trained = trained_on(runs[0]) if runs else None
    for other in runs if predictions is None else ():
        check_unseen(runs[0], other, split, _warn_of_leak)
    opened = open_run_caches(trained, caches)
    job = evaluation.EvaluationJob(
        split=split,
        rows=trained.rows if trained else "all",
        fold=trained.fold if trained else None,
        empty=empty,  # type: ignore[arg-type]
        tta=tta,
        threshold=threshold,
        without=tuple(name for name in MODALITIES if name in without),
        labels={**grades_of(opened), **(trained.labels if trained else {})},
    )
    if predictions is None:
        name = "-".join([split, *(("without", *job.without) if without else ())])
        folder = results_home(runs[0]) / "eval" / name
        sources = runs if checkpoint in ("best", "last") else [Path(checkpoint)]
        if sources is not runs and (sources[0].exists() or hub_name(sources[0])):
            check_unseen(runs[0], sources[0], split, _warn_of_leak)
        result = _score_models(job, opened, sources, checkpoint, device, folder, save_masks)
    else:
        _refuse_with_predictions(
            tta=tta, threshold=threshold, save_masks=save_masks, without=without
        )
        folder = (results_home(runs[0]) if runs else predictions) / "eval" / split
        regions = trained.regions if trained else ("wt", "tc", "et")
        result = _score_files(job, opened, regions, predictions, folder)
        if result is not None and hold_one_label(result.cases):
            print_message(
                "the masks hold one label alone, which counts as that label of the truth's scheme. "
                "If it means the whole tumour, the scores of TC and ET say nothing.",
                prefix="Warning: ",
            )
    if result is None:
        return
    if result.unmasked:
        print_message(
            f"{len(result.unmasked)} cases of the split have no mask and are not scored "
            f"({printable(first_few(result.unmasked, 3))}). Segment them with brats predict.",
            prefix="Note: ",
        )
    if result.num_stored:
        print_message(
            f"the model did not run for {result.num_stored} of {len(result.cases)} cases: their "
            "masks were kept by an earlier brats eval.",
            prefix="Note: ",
        )
    if as_json:
        click.echo(to_json(result.summary), nl=False)
    else:
        click.echo(describe(result.cases, result.summary))
        if "classification" in result.summary:
            click.echo(f"\n{describe_classes(result.summary['classification'])}")
        click.echo(f"\n{folder}/summary.json and cases.csv")


def _warn_of_leak(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print_message(text, prefix="Warning: ")


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
    from brats_train.evaluation.mask_store import MaskStore
    from brats_train.evaluation.publish import publish_evaluation, scratch_masks
    from brats_train.inference.case_models import load_case_models
    from brats_train.runtime.distributed import process_group

    with process_group(device) as world, contextlib.ExitStack() as stack:
        with world.errors_told_once():
            models = load_case_models(sources, world.device, checkpoint=checkpoint)
            _check_same_pixels(caches, models.spec, job.without)
        world.decide_on_main(lambda: stack.enter_context(_locked(folder)))
        progress = show_progress("Scoring", "cases", is_shown=world.is_main)
        masks = stack.enter_context(scratch_masks(folder, world)) if save_masks else None
        store = MaskStore.beside(folder, warn_damaged)
        with progress as report:
            result = evaluation.evaluate(job, caches, models, world, report, masks, store)
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
        progress = show_progress("Scoring", "cases", is_shown=world.is_main)
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


def _check_same_pixels(caches: Sequence[Any], spec: Any, without: Sequence[str]) -> None:
    """Raises `BratsError` where the caches' rows are not what the model takes."""
    for cache in caches:
        held = [name for name in cache.preparation.modalities if name not in without]
        expected = replace(spec.preparation, modalities=cache.preparation.modalities)
        wanted = spec.preparation.modalities
        missing = [name for name in wanted if name not in held]
        if cache.preparation != expected:
            raise BratsError(
                f"{cache.path}: its pixels were prepared differently from those the model was "
                f"trained on: {cache.preparation}, not {spec.preparation}."
            )
        if len(missing) == len(wanted) or (missing and not spec.accepts_missing):
            raise BratsError(
                f"{cache.path}: without {', '.join(missing)}, and the model was trained on "
                f"{', '.join(wanted)}. Train one that does without a modality with --set "
                "augment.modality_dropout=0.2."
            )


def _refuse_with_predictions(
    *, tta: bool | None, threshold: float | None, save_masks: bool, without: tuple[str, ...]
) -> None:
    given = {"--tta": tta is not None, "--threshold": threshold is not None}
    given |= {"--save-masks": save_masks, "--without": bool(without)}
    for option, is_given in given.items():
        if is_given:
            raise click.UsageError(
                f"{option} is for a model; --predictions scores masks as they are."
            )
