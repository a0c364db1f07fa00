"""The samples of an epoch and their order, a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import REGIONS
from brats_train.data.selection import RowSet

__all__ = ["Sampler", "make_sampler"]

NEAR_SLICES = 3  # slices from the tumour, where most false positives are
NEAR_WEIGHT = 3.0
MIN_SAMPLES = 1600  # of an epoch, so that validating does not take most of the time


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampler:
    """Draws the samples of an epoch, as positions among the selected rows.

    Attributes:
        num_rows: Number of selected rows.
        seed: Decides the draws.
        always: (n,) int64 positions that every pass holds, None for all of them.
        weights: (num_rows,) float64, chances of the other positions; 0 for those in `always`.
        num_drawn: How many of the others a pass holds, without repetition.
        num_passes: An epoch is so many passes, one after the other.
    """

    num_rows: int
    seed: int
    always: np.ndarray | None = None
    weights: np.ndarray | None = None
    num_drawn: int = 0
    num_passes: int = 1

    @property
    def num_samples(self) -> int:
        """Samples of an epoch."""
        if self.always is None:
            return self.num_rows
        return self.num_passes * (len(self.always) + self.num_drawn)

    def order(self, epoch: int) -> np.ndarray:
        """(num_samples,) int64 positions in the order of an epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        if self.always is None:
            return rng.permutation(self.num_rows)
        return np.concatenate([self._pass(rng) for _ in range(self.num_passes)])

    def _pass(self, rng: np.random.Generator) -> np.ndarray:
        assert self.always is not None
        drawn = np.zeros(0, np.int64)
        if self.num_drawn:
            assert self.weights is not None
            chances = self.weights / self.weights.sum()
            drawn = rng.choice(self.num_rows, self.num_drawn, replace=False, p=chances)
        return rng.permutation(np.concatenate([self.always, drawn]))


def make_sampler(
    caches: Sequence[Cache], rows: RowSet, seed: int, background: float | None
) -> Sampler:
    """Makes the sampler of a training.

    Args:
        caches: The caches of `rows`.
        rows: The selected rows.
        seed: Decides the draws.
        background: Slices without tumour in a pass, for each slice with tumour, all of which it
            holds; those near a tumour are drawn more often. An epoch is as many passes as give
            `MIN_SAMPLES`. None takes every row once an epoch.

    Returns:
        A sampler over positions in `rows`.
    """
    has_tumor = np.zeros(len(rows), bool)
    case, z = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    for number, cache in enumerate(caches):
        here = rows.cache == number
        slices = cache.slices[rows.row[here]]
        has_tumor[here] = slices["label_pixels"][:, sorted(REGIONS["wt"])].any(axis=1)
        case[here], z[here] = slices["case"].astype(np.int64) + (number << 32), slices["z"]
    if background is None or not has_tumor.any():
        return Sampler(num_rows=len(rows), seed=seed)
    others = np.flatnonzero(~has_tumor)
    weights = np.zeros(len(rows))
    weights[others] = 1.0
    for one in np.unique(case[has_tumor]):
        mine = others[case[others] == one]
        tumor_z = z[has_tumor & (case == one)]
        distance = np.abs(z[mine][:, None] - tumor_z).min(axis=1)
        weights[mine[distance <= NEAR_SLICES]] = NEAR_WEIGHT
    num_tumor = int(has_tumor.sum())
    num_drawn = min(round(background * num_tumor), len(others))
    return Sampler(
        num_rows=len(rows),
        seed=seed,
        always=np.flatnonzero(has_tumor),
        weights=weights,
        num_drawn=num_drawn,
        num_passes=-(-MIN_SAMPLES // (num_tumor + num_drawn)),
    )
