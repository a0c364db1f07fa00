"""The command `brats link`."""

from __future__ import annotations

from pathlib import Path

import click

from brats_cache.common.errors import print_message, printable
from brats_cache.format.cache_set import as_sets, missing_parts
from brats_cache.format.link import write_link

__all__ = ["link"]


@click.command("link")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def link(files: tuple[Path, ...], out: Path, overwrite: bool) -> None:
    """Make one HDF5 file over cache FILEs, for users of h5py.

    It holds no pixels: its images and masks are read from the FILEs. Training and the other
    commands take the FILEs themselves.
    """
    caches = write_link(files, out, overwrite=overwrite)
    for members in as_sets(caches):
        if members[0].shard[1] > 1 and (missing := missing_parts(members)):
            names = ", ".join(f"{index}/{members[0].shard[1]}" for index in missing)
            print_message(f"parts {names} of the set are missing.", prefix="Warning: ")
    num_rows = sum(cache.shape[0] for cache in caches)
    click.echo(f"{printable(out)} shows {num_rows} rows of {len(caches)} files.")
