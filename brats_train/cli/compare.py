"""The command `brats compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from brats_cache.common.errors import BratsError, printable
from brats_train.cli.options import PATH

__all__ = ["compare"]

# Of config.json; the others say where and when it was trained.
_PARTS = ("recipe", "fold", "init_from", "max_minutes", "device", "world_size", "caches")


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN RUN...")
@click.option(
    "--out",
    type=PATH,
    default=Path("comparison.html"),
    show_default=True,
    help="The page; an earlier one is replaced, no other file.",
)
def compare(runs: tuple[Path, ...], out: Path) -> None:
    """Compare runs with the first of them: settings, curves, and scores case by case.

    Scores are those of brats eval --split val, on the cases that all runs have scored; differences
    are paired, with intervals over patients.
    """
    if len(runs) < 2:
        raise click.UsageError("name at least two runs.")
    _check_out(out)
    from brats_cache.common.files import write_atomically
    from brats_train.evaluation.comparison import compare_results
    from brats_train.evaluation.results import read_results
    from brats_train.report.compare import ComparedRun, as_text, make_page
    from brats_train.training.run_dir import RunDir, decisive, differences

    found = [RunDir.existing(path) for path in runs]
    compared = [
        ComparedRun(name=name, config=run.read_config(), epochs=run.read_metrics())
        for name, run in zip(_names(runs), found, strict=True)
    ]
    read = [read_results(run.path / "eval" / "val") for run in found]
    results = [one for one in read if one is not None]
    if len(results) < len(read):
        missing = next(run.path for run, one in zip(found, read, strict=True) if one is None)
        click.echo(
            f"Note: {printable(missing)} is not scored (brats eval --split val); settings and "
            "curves alone are compared.",
            err=True,
        )
        scores, summary = [], "Not all runs are scored, so settings and curves alone are compared."
    else:
        scores = compare_results(results)
        num_cases = max((one.num_cases for one in scores), default=0)
        summary = (
            f"{num_cases} validation cases that all runs have scored; each run is compared with "
            f"{compared[0].name}."
        )
    settings = [
        setting
        for part in _PARTS
        for setting in differences(part, [decisive(run.config, part) for run in compared])
    ]
    page = make_page(compared, settings, scores, summary)
    write_atomically(out, page)
    for name, values in settings:
        click.echo(printable(f"{name}: {', '.join(map(str, values))}"))
    if scores:
        click.echo(f"\n{as_text(compared, scores)}")
    click.echo(f"\n{out}")


def _check_out(path: Path) -> None:
    """Makes the folder of the page. Raises `BratsError` where another file is in its place."""
    from brats_cache.common.files import open_regular_file
    from brats_train.report.compare import TITLE

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_regular_file(path) as file:
            start = file.read(4096)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BratsError(f"{printable(path)}: cannot be made ({error.strerror}).") from error
    if f"<title>{TITLE}".encode() not in start:
        raise BratsError(
            f"{printable(path)}: exists, and brats compare did not make it. Choose another --out."
        )


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' names; whole paths where two folders have one name."""
    names = [printable(path.resolve().name) for path in runs]
    return names if len(set(names)) == len(names) else [printable(path) for path in runs]
