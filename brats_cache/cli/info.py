"""The command `brats info`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from brats_cache.format.cache_set import as_sets
from brats_cache.format.describe import cache_as_json, describe_cache
from brats_cache.format.reader import open_cache

__all__ = ["info"]


@click.command("info")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything, a record for each case.")
def info(files: tuple[Path, ...], as_json: bool) -> None:
    """Say what cache FILEs hold."""
    caches = [open_cache(path) for path in files]
    if as_json:
        click.echo(json.dumps(cache_as_json(caches), indent=2))
        return
    click.echo("\n\n".join(describe_cache(members) for members in as_sets(caches)))
