"""The commands of `brats_cache`: what a person types to make and look into a cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from .build import build, survey_cases
from .cases import MODALITIES, find_cases
from .describe import cache_as_json, describe_cache, describe_plan, differences, human_bytes
from .errors import BratsError, DataFaults, Fault, printable
from .phantom import write_phantom
from .plan import BuildOptions, Plan, make_plan
from .preprocess import Preparation
from .progress import show_progress
from .store import open_cache
from .workers import Workers, usable_cores

__all__ = ["build_cache", "info", "phantom"]

DISK_MARGIN = 64 << 20


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
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV with columns case,split instead of --val-fraction.",
)
@click.option("--seed", default=0, show_default=True, help="Decides the split.")
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
    workers: int | None,
    dry_run: bool,
    skip_bad: bool,
    overwrite: bool,
) -> None:
    """Convert NIfTI cases under DATA (default: data) into one cache file.

    Every scan is checked before anything is written; all faults are reported together.
    """
    options = BuildOptions(
        preparation=Preparation(
            modalities=_parse_modalities(modalities), size=size, fit=fit, normalize=normalize
        ),
        slices=slices,
        label_scheme=label_scheme,
        val_fraction=val_fraction,
        num_folds=folds,
        split_file=split_file,
        seed=seed,
    )
    job = BuildJob(
        data=data or (Path("data"),),
        out=out,
        options=options,
        num_workers=workers,
        dry_run=dry_run,
        skip_bad=skip_bad,
        overwrite=overwrite,
    )
    _run_build(job)


@dataclass(frozen=True, kw_only=True)
class BuildJob:
    """What `brats build-cache` was asked to do."""

    data: tuple[Path, ...]
    out: Path
    options: BuildOptions
    num_workers: int | None
    dry_run: bool
    skip_bad: bool
    overwrite: bool


def _run_build(job: BuildJob) -> None:
    preparation = job.options.preparation
    findings = find_cases(job.data, preparation.modalities)
    for note in findings.notes:
        click.echo(f"Note: {printable(note)}", err=True)
    if not findings.cases:
        raise DataFaults(findings.faults, "Nothing was written.")
    with Workers(min(job.num_workers or usable_cores(), len(findings.cases))) as workers:
        with show_progress("Checking", "cases") as report:
            surveys, faults = survey_cases(findings.cases, preparation, workers, report)
        _refuse_or_skip([*findings.faults, *faults], job.skip_bad, num_sound=len(surveys))
        data_dirs = tuple(dict.fromkeys(survey.case.data_dir for survey in surveys))
        plan = make_plan(surveys, data_dirs, job.options)
        for warning in plan.warnings:
            click.echo(f"Warning: {printable(warning)}", err=True)
        click.echo(describe_plan(plan, job.out))
        if job.out.exists() and not job.overwrite:
            raise BratsError(_say_what_exists(job.out, plan))
        if job.dry_run:
            click.echo("Nothing was written (--dry-run).")
            return
        _prepare_folder(job.out.parent)
        _check_disk(job.out, plan.num_bytes)
        with show_progress("Writing", "rows") as report:
            build(plan, job.out, workers, report)
    click.echo(f"{job.out} is complete. Next: torchrun brats train --cache {job.out}")


@click.command("info")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything, a record for each case.")
def info(files: tuple[Path, ...], as_json: bool) -> None:
    """Say what cache FILEs hold."""
    caches = [open_cache(path) for path in files]
    if as_json:
        click.echo(json.dumps(cache_as_json(caches), indent=2))
        return
    for cache in caches:
        click.echo(describe_cache(cache))


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


def _prepare_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BratsError(f"{folder}: cannot be made ({error.strerror}).") from error


def _refuse_or_skip(faults: Sequence[Fault], skip_bad: bool, num_sound: int) -> None:
    """Stops on faults, or reports what is left out."""
    if not faults:
        return
    if not skip_bad or not num_sound:
        advice = "Nothing was written. Mend them, or leave those cases out with --skip-bad."
        raise DataFaults(faults, advice)
    click.echo(f"Warning: left out: {DataFaults(faults)}", err=True)


def _check_disk(out: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(out.parent).free
    if free < num_bytes + DISK_MARGIN:
        raise BratsError(
            f"{out}: needs {human_bytes(num_bytes)}, the disk has {human_bytes(free)} free. "
            "Free some, choose another --out, or fewer --slices."
        )


def _say_what_exists(out: Path, plan: Plan) -> str:
    cache = open_cache(out)
    found = differences(plan, cache)
    if not found:
        return (
            f"{out}: exists and is identical to this build (fingerprint {plan.fingerprint}). "
            "Nothing to do; --overwrite builds it again."
        )
    shown = "\n".join(f"  {line}" for line in found[:10])
    more = f"\n  and {len(found) - 10} more" if len(found) > 10 else ""
    return (
        f"{out}: exists and differs from this build:\n{shown}{more}\n"
        "Choose another --out, or replace it with --overwrite."
    )
