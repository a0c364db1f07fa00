"""The commands report and demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

__all__ = ["demo", "report"]

_PATH = click.Path(path_type=Path)


@click.command("report")
@click.option(
    "--run", "--run-dir", "run_dir", type=_PATH, help="Run folder.  [default: runs/latest]"
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
def report(run_dir: Path | None, device: str) -> None:
    """Draw a run's figures: curves, and validation cases with truth and prediction."""
    from .distributed import joined
    from .inference import load_ensemble
    from .rows import open_caches
    from .run_dir import RunDir

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
    from .rows import case_splits

    fold = run.read_config()["fold"]
    return [
        name.decode()
        for cache in caches
        for name in cache.cases["id"][case_splits(cache, fold) == "val"]
    ]
