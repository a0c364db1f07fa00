"""The command demo."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["demo"]

_PATH = click.Path(path_type=Path)


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
