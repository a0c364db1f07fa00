"""The command `brats compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from brats_cache.common.errors import BratsError, printable
from brats_train.cli.options import PATH

__all__ = ["compare"]


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN RUN...")
@click.option(
    "--out",
    type=PATH,
    default=Path("comparison.html"),
    show_default=True,
    help="The page, replaced where there is one.",
)
def compare(runs: tuple[Path, ...], out: Path) -> None:
    """Compare runs with the first of them: settings, curves, and scores case by case.

    Scores are those of brats eval --split val, on the cases that all runs have scored; differences
    are paired, with intervals over patients.
    """
    if len(runs) < 2:
        raise click.UsageError("name at least two runs.")
    from brats_cache.common.files import write_atomically
    from brats_train.evaluation.comparison import compare_results
    from brats_train.evaluation.results import read_results
    from brats_train.report.compare import ComparedRun, as_text, make_page
    from brats_train.training.run_dir import RunDir

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
        summary = f"{num_cases} cases that all runs have scored, validation split."
    settings = _differing([run.config for run in compared])
    page = make_page(compared, settings, scores, summary)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BratsError(f"{printable(out)}: cannot be made ({error.strerror}).") from error
    write_atomically(out, page)
    for name, values in settings:
        click.echo(printable(f"{name}: {', '.join(map(str, values))}"))
    if scores:
        click.echo(f"\n{as_text(compared, scores)}")
    click.echo(f"\n{out}")


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' names; whole paths where two folders have one name."""
    names = [printable(path.resolve().name) for path in runs]
    return names if len(set(names)) == len(names) else [printable(path) for path in runs]


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """The settings that are not equal in all runs, and the value of each."""
    decisive = ("recipe", "fold", "init_from", "max_minutes", "device", "world_size", "caches")
    flat = [
        {name: value for part in decisive for name, value in _flat(part, config.get(part))}
        for config in configs
    ]
    names = dict.fromkeys(name for one in flat for name in one)
    columns = {name: [one.get(name) for one in flat] for name in names}
    return [
        (name.removeprefix("recipe."), values)
        for name, values in columns.items()
        if any(value != values[0] for value in values)
    ]


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    """Names and values of a setting, mappings entered; a cache is known by its fingerprint."""
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flat(f"{name}.{key}", inner)]
    if name == "caches" and isinstance(value, list):
        value = [cache["fingerprint"] for cache in value]
    return [(name, value)]
