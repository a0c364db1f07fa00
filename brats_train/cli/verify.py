"""The command `brats verify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from brats_cache.common.errors import BratsError, DataFaults, Fault, RunNotFoundError, printable
from brats_cache.common.files import open_regular_file
from brats_cache.common.process import usable_cores
from brats_cache.common.progress import show_progress
from brats_cache.common.text import count_of
from brats_cache.format.reader import Cache, open_cache
from brats_cache.format.verify import verify_rows, verify_sources

__all__ = ["verify"]

_CHECKPOINT_NAMES = (".pt", ".pth")
_ZIP_START = b"PK\x03\x04"  # torch's files are zip archives


@click.command("verify")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--sources", is_flag=True, help="Also compare with the scans they were made of.")
@click.option("--workers", type=click.IntRange(1), help="Threads; as many as cores by default.")
def verify(files: tuple[Path, ...], sources: bool, workers: int | None) -> None:
    """Read FILEs whole and compare every byte with its checksum.

    A FILE is a cache, a checkpoint, an exported model, or a run folder, of which all checkpoints
    are read. Damaged files and cases are named, and the exit code is 1.
    """
    caches: list[Cache] = []
    checkpoints: list[Path] = []
    num_exported = 0
    unreadable: list[BratsError] = []
    for path in files:
        try:
            if path.is_dir() or path.suffix.lower() == ".onnx":
                found = _checkpoints_of(path)
                checkpoints += found
                num_exported += not found
            elif _is_checkpoint(path):
                checkpoints.append(path)
            else:
                caches.append(open_cache(path))
        except BratsError as error:  # the others are looked at all the same
            unreadable.append(error)
    faults = _cache_faults(caches, sources, workers or usable_cores())
    whole, without_digest = _read_checkpoints(checkpoints, unreadable)
    if faults:
        unreadable.append(DataFaults(faults))
    if unreadable:
        raise BratsError("\n".join(map(str, unreadable)))
    if caches:
        num_cases = sum(len(cache.cases) for cache in caches)
        also = " and their scans are unchanged" if sources else ""
        click.echo(f"{count_of(num_cases, 'case')}: every byte is as written{also}.")
    if whole:
        click.echo(f"{count_of(whole, 'checkpoint')}: every value is as written.")
    if num_exported:
        click.echo(f"{count_of(num_exported, 'exported model')}: every value is as written.")
    if without_digest:
        click.echo(f"{count_of(without_digest, 'checkpoint')}: readable, without a digest.")


def _checkpoints_of(run: Path) -> list[Path]:
    """The checkpoints in a run folder, at least one; none of an exported model, which is read."""
    from brats_train.models.run_files import fold_folders
    from brats_train.models.sources import is_run_dir, load_models
    from brats_train.training.run_dir import RunDir

    if not is_run_dir(run):
        load_models(run)
        return []
    held = [RunDir(path) for path in (fold_folders(run).values() or [run])]
    found = [path for one in held for path in (one.best, one.last) if path.exists()]
    if not found:
        names = f"{held[0].best.name} or {held[0].last.name}"
        raise RunNotFoundError(f"{printable(run)}: a folder without checkpoints (no {names}).")
    return found


def _is_checkpoint(path: Path) -> bool:
    """Whether a file is meant as a checkpoint, by its name or its first bytes."""
    if path.suffix in _CHECKPOINT_NAMES:
        return True
    try:
        with open_regular_file(path) as file:
            return file.read(len(_ZIP_START)) == _ZIP_START
    except OSError:  # opening it as a cache says what is wrong
        return False


def _cache_faults(caches: Sequence[Cache], sources: bool, threads: int) -> list[Fault]:
    """The damaged cases, and with `sources` the scans that have changed."""
    if not caches:
        return []
    with show_progress("Verifying", "MiB") as report:
        faults = list(verify_rows(caches, threads, _in_mib(report)))
    if sources:
        with show_progress("Scans", "MiB") as report:
            faults += verify_sources(caches, threads, _in_mib(report))
    return faults


def _read_checkpoints(paths: Sequence[Path], unreadable: list[BratsError]) -> tuple[int, int]:
    """How many checkpoints have their digest, and how many have none; errors are appended."""
    if not paths:
        return 0, 0
    from brats_train.models import checkpoint

    whole = without_digest = 0
    for path in paths:
        try:
            if checkpoint.load(path)["format_version"] == 1:
                without_digest += 1
            else:
                whole += 1
        except BratsError as error:
            unreadable.append(error)
    return whole, without_digest


def _in_mib(report: Callable[[int, int], None]) -> Callable[[int, int], None]:
    return lambda done, total: report(done >> 20, total >> 20)
