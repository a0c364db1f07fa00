"""How the axes of a file lie in the canonical array (superior, posterior, left)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from nibabel.orientations import io_orientation

__all__ = ["Orientation"]


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How a file's axes (x, y, z) lie in the canonical array `[z, y, x]` (superior, posterior,
    left).

    Attributes:
        permutation: The file's axis of each canonical axis z, y, x.
        flips: Whether each canonical axis runs against the file's.
    """

    permutation: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: np.ndarray) -> Orientation:
        """Finds the orientation of a (4, 4) voxel-to-RAS-mm affine, each axis by its closest."""
        return _orientation_of(np.asarray(affine, np.float64).tobytes())

    @property
    def codes(self) -> str:
        """Letters of the directions the file's axes run to, such as "LPS"."""
        letters = ["", "", ""]
        for axis, is_flipped, (along, against) in zip(
            self.permutation, self.flips, (("S", "I"), ("P", "A"), ("L", "R")), strict=True
        ):
            letters[axis] = against if is_flipped else along
        return "".join(letters)

    def to_canonical(self, volume: np.ndarray) -> np.ndarray:
        """Turns (X, Y, Z) as in the file into the canonical (Z, Y, X), as a view."""
        return volume.transpose(self.permutation)[self._slices()]

    def to_source(self, volume: np.ndarray) -> np.ndarray:
        """Turns the canonical (Z, Y, X) into (X, Y, Z) as in the file, as a view."""
        return volume[self._slices()].transpose(np.argsort(self.permutation))

    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else None) for flip in self.flips)


@lru_cache(maxsize=256)  # takes 0.4 ms, and most files of a data set have one affine
def _orientation_of(affine: bytes) -> Orientation:
    """The orientation of a (4, 4) affine, given as the bytes of float64."""
    ornt = io_orientation(np.frombuffer(affine, np.float64).reshape(4, 4))
    ras_axis = ornt[:, 0].astype(int)
    permutation = tuple(int(np.flatnonzero(ras_axis == axis)[0]) for axis in (2, 1, 0))
    wanted = (1, -1, -1)  # +1 towards S; -1 towards P and L, which are minus A and minus R
    flips = tuple(
        bool(ornt[source, 1] != sign) for source, sign in zip(permutation, wanted, strict=True)
    )
    return Orientation(permutation=permutation, flips=flips)  # type: ignore[arg-type]
