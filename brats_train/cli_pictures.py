"""The commands `brats report` and `brats view`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from brats_cache.errors import BratsError
from brats_cache.progress import show_progress

__all__ = ["report", "view"]

_PATH = click.Path(path_type=Path)


@click.command("report")
@click.option(
    "--run", "--run-dir", "run_dir", type=_PATH, help="Run folder.  [default: runs/latest]"
)
@click.option(
    "--cache", "caches", multiple=True, type=_PATH, help="Where the scored caches are now."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def report(run_dir: Path | None, caches: tuple[Path, ...], device: str) -> None:
    """Draw a run's figures, and one page with the figures, the scores and slices of every case.

    Shows what brats eval --split val has scored; of a run without scores, training alone. Writes
    figures/ and report.html into the run.
    """
    from .distributed import joined
    from .report import make_report
    from .results import read_results
    from .run_dir import RunDir

    run = RunDir.existing(run_dir)
    results = read_results(run.path / "eval" / "val")
    with joined(device) as world:
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
    from .gallery import by_files, by_model
    from .inference import load_ensemble
    from .report import check_unchanged
    from .rows import open_caches

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


@click.command("view")
@click.argument("case", type=_PATH)
@click.option("--mask", type=_PATH, help="A mask to show over the scan, such as predict's.")
@click.option(
    "--out", type=_PATH, metavar="FILE.html", help="Write the page instead of opening it."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="To serve at.  [default: a free one]"
)
def view(case: Path, mask: Path | None, out: Path | None, port: int) -> None:
    """Look at a scan in the browser: three planes linked by a crosshair, masks over them.

    CASE is a case folder; its own mask is shown where it has one. The page is served to this
    machine alone until Ctrl-C; --out makes it one file that needs no network.
    """
    from brats_cache.files import write_atomically

    from .view import make_view, serve

    if out is not None and out.exists():
        raise BratsError(f"{out}: exists already. Name another file, or remove it.")
    page = make_view(case, mask)
    if out is not None:
        write_atomically(out, page)
        click.echo(str(out))
    else:
        serve(page, port, click.echo)
