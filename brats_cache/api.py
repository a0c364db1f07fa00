"""The Python functions that `brats_cache` offers, see also `brats_cache.format.reader.Cache`."""

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
        data: Folders of cases, in any nesting.
        out: The file to make.
        modalities: Channels, in this order, of "t1", "t1ce", "t2" and "flair".
        slices: "brain", "tumor", "middle", "all" or "A:B".
        size: Side of a slice in pixels.
        fit: "resize" or "pad".
        normalize: "zscore", "percentile" or "none".
        label_scheme: "auto", or the name of a scheme.
        val_fraction: Part of the patients kept for validation.
        folds: Number of folds, 0 for none.
        split_file: CSV with columns `case,split` instead of `val_fraction`.
        seed: Decides the split.
        workers: Processes; as many as cores by default.
        skip_bad: Leave cases with faults out instead of stopping.
        overwrite: Replace an existing file.

    Returns:
        The finished cache, opened.

    Raises:
        DataFaults: Something is wrong with the scans; nothing was written.
        BratsError: Wrong options, a full disk, an existing file of other content.
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
    )
    run_build(job)
    return open_cache(job.out)
