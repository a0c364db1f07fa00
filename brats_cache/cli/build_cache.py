"""The command `brats build-cache`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from brats_cache.build.job import BuildJob, run_build
from brats_cache.build.options import BuildOptions
from brats_cache.build.shards import Shard, parse_shard
from brats_cache.common.errors import BratsError
from brats_cache.discovery.file_names import modality_of, plain_word
from brats_cache.discovery.namings import MODALITIES
from brats_cache.imaging.preprocess import Preparation

__all__ = ["build_cache"]


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
@click.option(
    "--shards",
    "num_shards",
    type=click.IntRange(1),
    metavar="N",
    help="Build all of N parts on a cluster, brats-1-of-N.h5 and so on; with --scheduler.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Of a dask.distributed cluster, such as tcp://node1:8786; local starts one here.",
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="CSV that names the files of every case, instead of DATA; see brats scan.",
)
@click.option(
    "--mask-word",
    "mask_words",
    multiple=True,
    metavar="WORD",
    help="A word in file names that means the mask; repeatable.",
)
@click.option(
    "--allow-unlabelled", is_flag=True, help="Build even if labelled cases end as test, or none is."
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
    num_shards: int | None,
    scheduler: str | None,
    manifest: Path | None,
    mask_words: tuple[str, ...],
    allow_unlabelled: bool,
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
        out = part.path_of(out)
    _check_cluster(shard, num_shards, scheduler, workers)
    source = context.get_parameter_source("val_fraction")
    if split_file and source is not ParameterSource.DEFAULT:
        raise click.UsageError("--split-file decides the split; leave --val-fraction out.")
    if manifest and data:
        raise click.UsageError("--manifest names every file; leave DATA out.")
    if manifest and mask_words:
        raise click.UsageError("--manifest names every file; leave --mask-word out.")
    _check_mask_words(mask_words)
    job = BuildJob(
        data=data or (Path("data"),),
        out=out,
        options=options,
        shard=part,
        num_workers=workers,
        dry_run=dry_run,
        skip_bad=skip_bad,
        overwrite=overwrite,
        manifest=manifest,
        mask_words=mask_words,
        allow_unlabelled=allow_unlabelled,
    )
    if num_shards and scheduler:
        from brats_cache.build.cluster_job import run_cluster_build  # needs an optional package

        run_cluster_build(job, num_shards, scheduler)
    else:
        run_build(job)


def _check_cluster(
    shard: str | None, num_shards: int | None, scheduler: str | None, workers: int | None
) -> None:
    """Checks that the options of a build on a cluster go together."""
    if (num_shards is None) != (scheduler is None):
        raise click.UsageError("--shards N and --scheduler ADDRESS (or local) go together.")
    if scheduler is None:
        return
    if shard:
        raise click.UsageError("--shard I/N builds one part, --shards N all of them: choose one.")
    if workers and scheduler != "local":
        raise click.UsageError("The cluster has workers of its own; leave --workers out.")


def _check_mask_words(words: Sequence[str]) -> None:
    for word in words:
        if not plain_word(word) or modality_of(word):
            raise click.BadParameter(
                f"{word!r}: expected the word at the end of the names of masks.",
                param_hint="--mask-word",
            )


def _parse_modalities(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in MODALITIES]
    if unknown or not names or len(set(names)) != len(names):
        raise click.BadParameter(
            f"{text!r}: expected different names out of {', '.join(MODALITIES)}.",
            param_hint="--modalities",
        )
    return names
