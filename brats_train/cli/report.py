"""The command `brats report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from brats_cache.common.progress import show_progress
from brats_train.cli.options import PATH

__all__ = ["report"]


@click.command("report")
@click.option(
    "--run", "--run-dir", "run_dir", type=PATH, help="Run folder.  [default: runs/latest]"
)
@click.option(
    "--cache", "caches", multiple=True, type=PATH, help="Where the scored caches are now."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def report(run_dir: Path | None, caches: tuple[Path, ...], device: str) -> None:
    """Draw a run's figures, and one page with the figures, the scores and slices of every case.

    Shows what brats eval --split val has scored; of a run without scores, training alone. Writes
    figures/ and report.html into the run.
    """
    from brats_train.evaluation.results import read_results
    from brats_train.report.build import make_report
    from brats_train.runtime.distributed import process_group
    from brats_train.training.run_dir import RunDir

    run = RunDir.existing(run_dir)
    results = read_results(run.path / "eval" / "val")
    with process_group(device) as world:
        if not world.is_main:
            return
        if results is None:
            click.echo("Note: not scored yet (brats eval --split val); shows training.", err=True)
            written = make_report(run, None, [], None, lambda done, total: None)
        else:
            opened, predict = _scored(run, results, caches, world.device)
            with show_progress("Looking", "cases") as progress:
                written = make_report(run, results, opened, predict, progress)
    for path in written:
        click.echo(str(path))


def _scored(run: Any, results: Any, caches: Sequence[Path], device: Any) -> tuple[list[Any], Any]:
    """The caches that were scored, and what predicts as then."""
    from brats_cache.format.cache_set import open_caches
    from brats_train.inference.ensemble import load_ensemble
    from brats_train.report.build import check_unchanged
    from brats_train.report.gallery import by_files, by_model

    summary = results.summary
    opened = open_caches(caches or [Path(cache["path"]) for cache in summary["caches"]])
    if "predictions" in summary:
        check_unchanged(results, opened, None)
        return opened, by_files(Path(summary["predictions"]), results.regions)
    paths = [_moved_along(checkpoint, run.path) for checkpoint in summary["checkpoints"]]
    ensemble = load_ensemble(paths, device)
    check_unchanged(results, opened, ensemble)
    return opened, by_model(ensemble, summary)


def _moved_along(checkpoint: Mapping[str, str], run_path: Path) -> Path:
    """The checkpoint, which may lie in its run's folder under another path now; its fingerprint is
    checked, so the name alone decides nothing."""
    path = Path(checkpoint["path"])
    return path if path.is_file() else run_path / path.name
