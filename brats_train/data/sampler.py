"""The samples of an epoch and their order, a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import REGIONS
from brats_train.data.selection import RowSet

__all__ = ["Sampler", "is_near_tumor", "make_sampler"]

NEAR_SLICES = 3  # slices from the tumour, where most false positives are
NEAR_WEIGHT = 3.0
MIN_SAMPLES = 1600  # of an epoch, so that validating does not take most of the time


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampler:
    """Draws the samples of an epoch, as positions among the selected rows.

    Attributes:
        seed: Decides the draws.
        always: (n,) int64 positions that every pass holds.
        copies: (n,) float64, how often a pass holds each of them; of a fraction, so many of the
            positions are drawn.
        chances: (num_rows,) float64, chances of the other positions; 0 for those in `always`.
        num_drawn: How many of the others a pass holds, without repetition.
        num_passes: An epoch is so many passes, one after the other.
    """

    seed: int
    always: np.ndarray
    copies: np.ndarray
    chances: np.ndarray
    num_drawn: int = 0
    num_passes: int = 1

    @classmethod
    def uniform(cls, num_rows: int, seed: int) -> Sampler:
        """A sampler whose epochs hold each of `num_rows` rows once."""
        return cls(
            seed=seed,
            always=np.arange(num_rows),
            copies=np.ones(num_rows),
            chances=np.zeros(num_rows),
        )

    @property
    def num_samples(self) -> int:
        """Samples of an epoch."""
        whole, fractions = _whole_and_fractions(self.copies)
        return self.num_passes * int(whole.sum() + round(fractions.sum()) + self.num_drawn)

    def order(self, epoch: int) -> np.ndarray:
        """(num_samples,) int64 positions in the order of an epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        return np.concatenate([self._pass(rng) for _ in range(self.num_passes)])

    def _pass(self, rng: np.random.Generator) -> np.ndarray:
        whole, fractions = _whole_and_fractions(self.copies)
        parts = [
            np.repeat(self.always, whole),
            _draw(rng, self.always, round(fractions.sum()), fractions),
            _draw(rng, np.arange(len(self.chances)), self.num_drawn, self.chances),
        ]
        return rng.permutation(np.concatenate(parts))


def _whole_and_fractions(copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    whole = np.floor(copies).astype(np.int64)
    return whole, copies - whole


def _draw(
    rng: np.random.Generator, positions: np.ndarray, num: int, chances: np.ndarray
) -> np.ndarray:
    """`num` of the positions, each at most once."""
    if not num:
        return np.zeros(0, np.int64)
    return rng.choice(positions, num, replace=False, p=chances / chances.sum())


def make_sampler(
    caches: Sequence[Cache],
    rows: RowSet,
    seed: int,
    background: float | None,
    cache_weights: Sequence[float] = (),
) -> Sampler:
    """Makes the sampler of a training.

    Args:
        caches: The caches of `rows`.
        rows: The selected rows.
        seed: Decides the draws.
        background: Slices without tumour in a pass, for each slice with tumour, all of which it
            holds; those near a tumour are drawn more often. An epoch is as many passes as give
            `MIN_SAMPLES`. None takes every row once an epoch.
        cache_weights: How often the rows of each cache are taken, relative to that; none is once.

    Returns:
        A sampler over positions in `rows`.
    """
    copies = np.array(cache_weights or [1.0] * len(caches))[rows.cache]
    has_tumor = np.zeros(len(rows), bool)
    case, z = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    for number, cache in enumerate(caches):
        here = rows.cache == number
        slices = cache.slices[rows.row[here]]
        has_tumor[here] = slices["label_pixels"][:, sorted(REGIONS["wt"])].any(axis=1)
        case[here], z[here] = slices["case"].astype(np.int64) + (number << 32), slices["z"]
    chances = np.zeros(len(rows))
    if background is None or not has_tumor.any():
        return Sampler(seed=seed, always=np.arange(len(rows)), copies=copies, chances=chances)
    chances[~has_tumor] = copies[~has_tumor]
    chances[is_near_tumor(case, z, has_tumor)] *= NEAR_WEIGHT  # those with tumour stay at 0
    num_tumor = copies[has_tumor].sum()
    num_drawn = min(round(background * num_tumor), np.count_nonzero(~has_tumor))
    return Sampler(
        seed=seed,
        always=np.flatnonzero(has_tumor),
        copies=copies[has_tumor],
        chances=chances,
        num_drawn=num_drawn,
        num_passes=-(-MIN_SAMPLES // max(1, round(num_tumor) + num_drawn)),
    )


def is_near_tumor(case: np.ndarray, z: np.ndarray, has_tumor: np.ndarray) -> np.ndarray:
    """Whether a row with tumour of the same case is within `NEAR_SLICES`, in n log n steps.

    Args:
        case: (n,) int64 numbers of cases, in any order.
        z: (n,) int64, 0 or more.
        has_tumor: (n,) bool, at least one true.

    Returns:
        (n,) bool; rows with tumour are near themselves.
    """
    _, number = np.unique(case, return_inverse=True)
    # One axis for all cases, which lie farther apart on it than near slices do.
    position = number * (z.max() + NEAR_SLICES + 1) + z
    tumors = np.sort(position[has_tumor])
    after = np.searchsorted(tumors, position)
    before = np.maximum(after - 1, 0)
    after = np.minimum(after, len(tumors) - 1)
    distance = np.minimum(np.abs(position - tumors[before]), np.abs(position - tumors[after]))
    return distance <= NEAR_SLICES
