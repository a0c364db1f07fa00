"""The options of a build."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from brats_cache.common.errors import BratsError
from brats_cache.imaging.labels import SCHEMES
from brats_cache.imaging.preprocess import FITS, NORMALIZATIONS, Preparation

__all__ = ["BuildOptions", "describe_options"]

_RANGE = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The options that decide the content of a cache.

    Attributes:
        preparation: Modalities, size, fit and normalisation of the slices.
        slices: Which slices of a volume to keep: "brain", "tumor", "middle", "all", or "A:B" for
            canonical z from A up to, not including, B.
        label_scheme: "auto", or the name of a scheme.
        val_fraction: Fraction of the patients kept for validation, 0 up to, not including, 1.
        num_folds: Number of cross-validation folds, 2 or more, or 0 for none.
        split_file: CSV file that decides the splits instead of `val_fraction`, and the folds where
            it has a column `fold`.
        seed: Seed of the splits and folds.

    Raises:
        BratsError: An option is out of its range.
    """

    preparation: Preparation
    slices: str = "brain"
    label_scheme: str = "auto"
    val_fraction: float = 0.15
    num_folds: int = 0
    split_file: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        preparation = self.preparation
        if self.slices not in ("brain", "tumor", "middle", "all"):
            bounds = _RANGE.fullmatch(self.slices)
            if not bounds or int(bounds[1]) >= int(bounds[2]):
                raise BratsError(
                    f"--slices {self.slices}: expected brain, tumor, middle, all or A:B with A < B."
                )
        if preparation.fit not in FITS:
            raise BratsError(f"--fit {preparation.fit}: expected {' or '.join(FITS)}.")
        if preparation.normalize not in NORMALIZATIONS:
            expected = ", ".join(NORMALIZATIONS)
            raise BratsError(f"--normalize {preparation.normalize}: expected one of {expected}.")
        if not 16 <= preparation.size <= 4096:
            raise BratsError(f"--size {preparation.size}: expected 16 to 4096 pixels.")
        if self.label_scheme not in ("auto", *SCHEMES):
            expected = ", ".join(["auto", *SCHEMES])
            raise BratsError(f"--label-scheme {self.label_scheme}: expected one of {expected}.")
        if self.num_folds < 0 or self.num_folds == 1:
            raise BratsError(f"--folds {self.num_folds}: expected 2 or more, or 0 for none.")
        if not 0 <= self.val_fraction < 1:
            raise BratsError(f"--val-fraction {self.val_fraction}: expected 0 up to 1, 1 excluded.")


def describe_options(options: BuildOptions) -> dict[str, object]:
    """Describes options as plain JSON values, as they are stored in the cache file."""
    described = asdict(options)
    described["split_file"] = options.split_file.name if options.split_file else None
    described.update(described.pop("preparation"))
    return described
