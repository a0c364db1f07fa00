"""The public Python API of `brats_cache`, next to `brats_cache.format.reader.Cache`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from brats_cache.build.job import BuildJob, run_build
from brats_cache.build.options import BuildOptions
from brats_cache.discovery.namings import MODALITIES
from brats_cache.format.reader import Cache, open_cache
from brats_cache.imaging.preprocess import Preparation

__all__ = ["build_cache"]


def build_cache(
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    manifest: str | Path | None = None,
    mask_words: Sequence[str] = (),
    allow_unlabelled: bool = False,
    modalities: Sequence[str] = MODALITIES,
    slices: str = "brain",
    size: int = 256,
    fit: str = "resize",
    normalize: str = "zscore",
    label_scheme: str = "auto",
    val_fraction: float = 0.15,
    folds: int = 0,
    split_file: str | Path | None = None,
    seed: int = 0,
    workers: int | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
) -> Cache:
    """Converts NIfTI cases into one cache file, as `brats build-cache` does.

    Worker processes are started, so a script must call it under `if __name__ == "__main__":`.

    Args:
        data: One or more folders of cases, in any nesting.
        out: Path of the cache file.
        manifest: CSV file that names the files of every case; `data` is then an empty list.
        mask_words: Words in file names that mean the mask, besides the known ones.
        allow_unlabelled: Build even if labelled cases end as test, or no case is labelled.
        modalities: Channels of the images in this order, of "t1", "t1ce", "t2" and "flair".
        slices: Which slices to keep: "brain" (slices with brain), "tumor", "middle", "all", or
            "A:B" for canonical z from A up to, not including, B.
        size: Side S of a slice in pixels, 16 to 4096.
        fit: "resize" stretches each axis to S, "pad" centres the slice without interpolation.
        normalize: Over the brain voxels of each volume: "zscore", "percentile" or "none".
        label_scheme: "auto" to detect what the mask values mean, or the name of a scheme.
        val_fraction: Fraction of the patients kept for validation, 0 up to, not including, 1.
        folds: Number of cross-validation folds, 2 or more, or 0 for none.
        split_file: CSV file with columns `case,split` or `patient,split` that replaces
            `val_fraction`.
        seed: Seed of the splits and folds.
        workers: Number of worker processes; by default as many as usable cores.
        skip_bad: Leave out cases with faults instead of stopping.
        overwrite: Replace an existing file.

    Returns:
        The finished cache, opened.

    Raises:
        DataFaults: The scans have faults; nothing was written.
        BratsError: An option is out of its range, the disk is full, or a different cache exists.
    """
    folders = [data] if isinstance(data, str | Path) else data
    options = BuildOptions(
        preparation=Preparation(
            modalities=tuple(modalities), size=size, fit=fit, normalize=normalize
        ),
        slices=slices,
        label_scheme=label_scheme,
        val_fraction=val_fraction,
        num_folds=folds,
        split_file=Path(split_file) if split_file else None,
        seed=seed,
    )
    job = BuildJob(
        data=tuple(Path(folder) for folder in folders),
        out=Path(out),
        options=options,
        num_workers=workers,
        skip_bad=skip_bad,
        overwrite=overwrite,
        manifest=Path(manifest) if manifest else None,
        mask_words=tuple(mask_words),
        allow_unlabelled=allow_unlabelled,
    )
    run_build(job)
    return open_cache(job.out)
