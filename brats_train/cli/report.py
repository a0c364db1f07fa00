"""The command `brats report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from brats_cache.common.errors import print_message, printable
from brats_cache.common.progress import show_progress
from brats_cache.common.text import first_few
from brats_train.cli.options import PATH, check_still_there, say_loading, warn_damaged

__all__ = ["report"]


@click.command("report")
@click.option(
    "--run", "--run-dir", "run_dir", type=PATH, help="Run folder.  [default: runs/latest]"
)
@click.option(
    "--cache", "caches", multiple=True, type=PATH, help="Scored cache, if it was moved; repeatable."
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(("png", "svg", "pdf")),
    help="Of the figures; repeatable.  [default: png and svg]",
)
@click.option(
    "--dpi",
    type=click.IntRange(50, 1200),
    default=150,
    show_default=True,
    help="Pixels an inch of PNG, and of scans in SVG and PDF.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def report(
    run_dir: Path | None, caches: tuple[Path, ...], formats: tuple[str, ...], dpi: int, device: str
) -> None:
    """Make a run's figures, and one page with figures, scores and slices of every case.

    Shows what brats eval --split val has scored, or training alone without scores. Writes figures/
    and report.html into the run. For a paper: --format pdf --dpi 300.
    """
    say_loading()
    from brats_train.evaluation.results import read_results
    from brats_train.report.build import make_report
    from brats_train.runtime.distributed import process_group
    from brats_train.training.run_dir import RunDir

    kinds = formats or ("png", "svg")
    run = RunDir.existing(run_dir)
    results = read_results(run.path / "eval" / "val")
    with process_group(device) as world:
        if not world.is_main:
            return
        with run.locked("brats report"):
            if results is None:
                click.echo(
                    "Note: not scored yet (brats eval --split val); shows training.", err=True
                )
                written = make_report(run, None, [], None, lambda done, total: None, kinds, dpi)
            else:
                opened, predict = _scored(run, results, caches, world.device)
                with show_progress("Drawing", "cases") as progress:
                    written = make_report(run, results, opened, predict, progress, kinds, dpi)
    for path in written:
        click.echo(str(path))


def _scored(run: Any, results: Any, caches: Sequence[Path], device: Any) -> tuple[list[Any], Any]:
    """The caches that were scored, and a function that predicts as the evaluation did."""
    from brats_cache.format.cache_set import open_caches
    from brats_train.evaluation.evaluate import SLICE_THRESHOLD
    from brats_train.evaluation.mask_store import InferenceSettings, MaskStore
    from brats_train.report.build import check_unchanged
    from brats_train.report.gallery import files_predictor, model_predictor
    from brats_train.report.scored_models import load_scored

    summary = results.summary
    own = [Path(cache["path"]) for cache in summary["caches"]]
    if not caches:
        check_still_there(own)
    has_folds = run.read_config()["fold"] is not None
    opened = open_caches(caches or own, same_modalities=False, by_fold=has_folds)
    unseen = [
        cache.case_id(index)
        for cache in opened
        for index, rows in enumerate(cache.cases["rows"])
        if not rows and cache.case_id(index) in results.cases
    ]
    if unseen:
        print_message(
            f"{printable(first_few(unseen, 3))}: scored, but of which the caches hold no slice, so "
            "the page does not show it.",
            prefix="Note: ",
        )
    if "predictions" in summary:
        check_unchanged(results, opened, None)
        return opened, files_predictor(Path(summary["predictions"]), results.regions)
    models = load_scored(results.models, run.path, device)
    check_unchanged(results, opened, models)
    settings = InferenceSettings(  # an older version did not tell where
        device=summary.get("device", device.type),
        amp=summary.get("amp", models.whole.amp),
        slice_threshold=summary.get("slice_threshold", SLICE_THRESHOLD),
    )
    store = MaskStore.beside(results.folder, warn_damaged)
    return opened, model_predictor(models, summary["slice_rows"], settings, store)
