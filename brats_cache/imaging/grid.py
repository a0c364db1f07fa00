"""The voxel grid of a scan in space, and whether two volumes lie on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brats_cache.imaging.orientation import Orientation

__all__ = ["GRID_TOLERANCE_MM", "Grid", "corner_positions", "largest_displacement"]

GRID_TOLERANCE_MM = 0.05  # rounding of quaternions in float32 moves a far corner by about 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Where the voxels of a scan lie.

    Attributes:
        shape: (X, Y, Z) voxels as in its file.
        affine: (4, 4) float64, voxel to RAS mm.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """(Z, Y, X)."""
        z, y, x = (self.shape[axis] for axis in Orientation.of(self.affine).permutation)
        return z, y, x

    @property
    def canonical_affine(self) -> np.ndarray:
        """(4, 4) float64: indices (z, y, x) of the canonical array to RAS mm.

        Equal for files that store one grid in different orders of axes.
        """
        orientation = Orientation.of(self.affine)
        to_source = np.zeros((4, 4))
        to_source[3, 3] = 1.0
        axes = zip(orientation.permutation, orientation.flips, strict=True)
        for canonical, (source, is_flipped) in enumerate(axes):
            to_source[source, canonical] = -1.0 if is_flipped else 1.0
            to_source[source, 3] = self.shape[source] - 1 if is_flipped else 0.0
        affine: np.ndarray = self.affine @ to_source
        return affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Size of a voxel in mm along Z, Y, X."""
        sides = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        dz, dy, dx = (float(sides[axis]) for axis in Orientation.of(self.affine).permutation)
        return dz, dy, dx


def corner_positions(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Returns the positions of the eight corner voxels of a volume.

    Args:
        shape: (X, Y, Z) voxels.
        affine: (4, 4) float64, voxel to mm.

    Returns:
        (3, 8) float64, mm.
    """
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], [1], indexing="ij"))
    positions: np.ndarray = (affine @ corners.reshape(4, -1))[:3]
    return positions


def largest_displacement(shape: Sequence[int], first: np.ndarray, other: np.ndarray) -> float:
    """Measures how far apart two affines put the corners of one volume.

    Args:
        shape: (X, Y, Z) voxels.
        first: (4, 4) float64, voxel to mm.
        other: Another affine.

    Returns:
        The largest of the eight distances, mm.
    """
    difference = corner_positions(shape, first) - corner_positions(shape, other)
    return float(np.linalg.norm(difference, axis=0).max())
