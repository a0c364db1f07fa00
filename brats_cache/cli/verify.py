"""The command `brats verify`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from brats_cache.common.errors import BratsError, DataFaults, Fault
from brats_cache.common.process import usable_cores
from brats_cache.common.progress import show_progress
from brats_cache.format.reader import Cache, open_cache
from brats_cache.format.verify import verify_rows, verify_sources

__all__ = ["verify"]


@click.command("verify")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--sources", is_flag=True, help="Also compare with the scans they were made of.")
@click.option("--workers", type=click.IntRange(1), help="Threads; as many as cores by default.")
def verify(files: tuple[Path, ...], sources: bool, workers: int | None) -> None:
    """Read cache FILEs whole and compare every byte with its checksum.

    Damaged cases are named, and the exit code is 1.
    """
    threads = workers or usable_cores()
    caches: list[Cache] = []
    faults: list[Fault] = []
    unreadable: list[BratsError] = []
    for path in files:
        try:
            caches.append(open_cache(path))
        except BratsError as error:  # the others are looked at all the same
            unreadable.append(error)
    with show_progress("Verifying", "MiB") as report:
        faults += verify_rows(caches, threads, _in_mib(report))
    if sources:
        with show_progress("Scans", "MiB") as report:
            faults += verify_sources(caches, threads, _in_mib(report))
    if faults:
        unreadable.append(DataFaults(faults))
    if unreadable:
        raise BratsError("\n".join(map(str, unreadable)))
    num_cases = sum(len(cache.cases) for cache in caches)
    also = " and their scans are unchanged" if sources else ""
    click.echo(f"{num_cases} case{'s' if num_cases != 1 else ''}: every byte is as written{also}.")


def _in_mib(report: Callable[[int, int], None]) -> Callable[[int, int], None]:
    return lambda done, total: report(done >> 20, total >> 20)
