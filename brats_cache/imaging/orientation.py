"""How the axes of a file lie in the canonical array (superior, posterior, left)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.orientations import io_orientation

__all__ = ["Orientation"]


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How a file's axes (x, y, z) lie in the canonical array `[z, y, x]` (superior, posterior,
    left)."""

    permutation: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: np.ndarray) -> Orientation:
        """The orientation of a (4, 4) voxel-to-RAS-mm affine, each axis going to its closest."""
        ornt = io_orientation(affine)
        ras_axis = ornt[:, 0].astype(int)
        permutation = tuple(int(np.flatnonzero(ras_axis == axis)[0]) for axis in (2, 1, 0))
        wanted = (1, -1, -1)  # +1 towards S; -1 towards P and L, which are minus A and minus R
        flips = tuple(
            bool(ornt[source, 1] != sign) for source, sign in zip(permutation, wanted, strict=True)
        )
        return cls(permutation=permutation, flips=flips)  # type: ignore[arg-type]

    def to_canonical(self, volume: np.ndarray) -> np.ndarray:
        """(X, Y, Z) as in the file -> canonical (Z, Y, X), a view."""
        return volume.transpose(self.permutation)[self._slices()]

    def to_source(self, volume: np.ndarray) -> np.ndarray:
        """Canonical (Z, Y, X) -> (X, Y, Z) as in the file, a view; undoes `to_canonical`."""
        return volume[self._slices()].transpose(np.argsort(self.permutation))

    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else None) for flip in self.flips)
