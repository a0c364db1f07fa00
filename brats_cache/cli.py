"""The commands of `brats_cache`: what a person types to make and look into a cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
from click.core import ParameterSource

from .cases import MODALITIES
from .describe import cache_as_json, describe_cache
from .errors import BratsError, DataFaults, Fault, printable, tell
from .job import BuildJob, run_build
from .link import write_link
from .phantom import write_phantom
from .plan import BuildOptions
from .preprocess import Preparation
from .process import usable_cores
from .progress import show_progress
from .shards import Shard, as_sets, missing_parts, parse_shard
from .store import Cache, open_cache
from .verify import verify_rows, verify_sources

__all__ = ["build_cache", "info", "link", "phantom", "verify"]


@click.command("build-cache")
@click.argument("data", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("data/brats.h5"),
    show_default=True,
    help="The file to make.",
)
@click.option(
    "--modalities",
    default="t1,t1ce,t2,flair",
    show_default=True,
    help="Channels, in this order; a subset for data that has fewer.",
)
@click.option(
    "--slices",
    default="brain",
    show_default=True,
    metavar="RULE",
    help="brain (slices with brain), tumor, middle (z = Z // 2), all, or A:B.",
)
@click.option("--size", default=256, show_default=True, help="Side of a slice in pixels.")
@click.option(
    "--fit",
    type=click.Choice(["resize", "pad"]),
    default="resize",
    show_default=True,
    help="Stretch each axis to the size, or centre without interpolation.",
)
@click.option(
    "--normalize",
    type=click.Choice(["zscore", "percentile", "none"]),
    default="zscore",
    show_default=True,
    help="Over the brain voxels of each volume.",
)
@click.option(
    "--label-scheme",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="What the mask values mean, where names and values do not tell.",
)
@click.option(
    "--val-fraction",
    default=0.15,
    show_default=True,
    help="Part of the patients kept for validation.",
)
@click.option("--folds", default=0, help="Number the patients' folds 0 to K-1 for --fold.")
@click.option(
    "--split-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="CSV with columns case,split (or patient,split) instead of --val-fraction.",
)
@click.option("--seed", default=0, show_default=True, help="Decides the split.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Build the I-th of N parts on its own; the default --out becomes brats-I-of-N.h5.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes; as many as cores by default.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be made, stop.")
@click.option("--skip-bad", is_flag=True, help="Leave cases with faults out instead of stopping.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def build_cache(
    data: tuple[Path, ...],
    out: Path,
    modalities: str,
    slices: str,
    size: int,
    fit: str,
    normalize: str,
    label_scheme: str,
    val_fraction: float,
    folds: int,
    split_file: Path | None,
    seed: int,
    shard: str | None,
    workers: int | None,
    dry_run: bool,
    skip_bad: bool,
    overwrite: bool,
) -> None:
    """Convert NIfTI cases under DATA (default: data) into one cache file.

    Every scan is checked before anything is written; all faults are reported together.
    """
    preparation = Preparation(
        modalities=_parse_modalities(modalities), size=size, fit=fit, normalize=normalize
    )
    try:
        options = BuildOptions(
            preparation=preparation,
            slices=slices,
            label_scheme=label_scheme,
            val_fraction=val_fraction,
            num_folds=folds,
            split_file=split_file,
            seed=seed,
        )
        part = parse_shard(shard) if shard else Shard()
    except BratsError as error:
        raise click.UsageError(str(error)) from error
    context = click.get_current_context()
    if part.is_part and context.get_parameter_source("out") is ParameterSource.DEFAULT:
        out = out.with_name(f"{out.stem}-{part.index}-of-{part.count}{out.suffix}")
    source = context.get_parameter_source("val_fraction")
    if split_file and source is not ParameterSource.DEFAULT:
        raise click.UsageError("--split-file decides the split; leave --val-fraction out.")
    job = BuildJob(
        data=data or (Path("data"),),
        out=out,
        options=options,
        shard=part,
        num_workers=workers,
        dry_run=dry_run,
        skip_bad=skip_bad,
        overwrite=overwrite,
    )
    run_build(job)


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
            tell(f"parts {names} of the set are missing.", prefix="Warning: ")
    num_rows = sum(cache.shape[0] for cache in caches)
    click.echo(f"{printable(out)} shows {num_rows} rows of {len(caches)} files.")


@click.command("phantom")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--cases", default=24, show_default=True, help="Cases with masks.")
@click.option("--test-cases", default=4, show_default=True, help="Cases without masks.")
@click.option("--seed", default=0, show_default=True, help="The same seed makes the same bytes.")
@click.option("--gz/--no-gz", default=False, show_default=True, help="Write .nii.gz.")
@click.option("--shape", default="240x240x155", show_default=True, help="Voxels along X, Y and Z.")
@click.option("--workers", type=click.IntRange(1), help="Processes; as many as cores by default.")
def phantom(
    out: Path, cases: int, test_cases: int, seed: int, gz: bool, shape: str, workers: int | None
) -> None:
    """Make synthetic cases shaped and named like BraTS 2020 in folder OUT."""
    with show_progress("Making", "cases") as report:
        write_phantom(
            out,
            num_cases=cases,
            num_test_cases=test_cases,
            seed=seed,
            gz=gz,
            shape=_parse_shape(shape),
            workers=workers,
            progress=report,
        )
    click.echo(f"{cases + test_cases} cases in {out}. Next: brats build-cache {out}")


def _in_mib(report: Callable[[int, int], None]) -> Callable[[int, int], None]:
    return lambda done, total: report(done >> 20, total >> 20)


def _parse_modalities(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in MODALITIES]
    if unknown or not names or len(set(names)) != len(names):
        raise click.BadParameter(
            f"{text!r}: expected different names out of {', '.join(MODALITIES)}.",
            param_hint="--modalities",
        )
    return names


def _parse_shape(text: str) -> tuple[int, int, int]:
    parts = text.replace(",", "x").split("x")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise click.BadParameter(f"{text!r}: expected X x Y x Z, such as 240x240x155.")
    x, y, z = (int(part) for part in parts)
    return x, y, z
