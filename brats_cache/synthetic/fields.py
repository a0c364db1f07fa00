"""Fields of a synthetic head: the voxel grid, smooth random fields and distances to simple bodies.

What is smooth is computed on a 4 mm lattice and enlarged. Lengths are mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

__all__ = ["Grid", "ellipsoid", "noise", "ramp", "smooth_max", "tube"]

_Point = tuple[float, float, float]
_FIELD_MM = (155.0, 240.0, 240.0)
_CENTRE_MM = (72.0, 124.0, 119.5)
_WINDOW_MM = (
    (0.0, 148.0),
    (28.0, 220.0),
    (46.0, 194.0),
)  # holds every brain, its margin included
_LATTICE_MM = 4.0
_LATTICE = (
    37,
    48,
    37,
)  # steps of _LATTICE_MM through the window


class Grid:
    """The voxels of the window around the brain, and the coarse lattice of smooth fields over it.

    Attributes:
        shape: (Z, Y, X) voxels of the volume.
        voxel_mm: The longest side of a voxel.
        window: The slices of the volume that hold every brain.
        inside: Bool over the window, True in the brain.
        lattice: (3, *_LATTICE) float32, x, y, z of the lattice, mm.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        """Makes the grid of a volume of `shape` (Z, Y, X)."""
        self.shape = shape
        sizes = [mm / n for mm, n in zip(_FIELD_MM, shape, strict=True)]
        self.voxel_mm = max(sizes)
        low = [int(span[0] / size) for span, size in zip(_WINDOW_MM, sizes, strict=True)]
        high = [
            min(-int(-span[1] // size), n)
            for span, size, n in zip(_WINDOW_MM, sizes, shape, strict=True)
        ]
        self.window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        self.inside = np.zeros([b - a for a, b in zip(low, high, strict=True)], bool)
        axes = [
            (a + (np.arange(n, dtype=np.float32) + 0.5) * (b - a) / n) * size - 0.5 - centre
            for a, b, n, size, centre in zip(low, high, _LATTICE, sizes, _CENTRE_MM, strict=True)
        ]
        self.lattice = np.stack(np.meshgrid(*axes, indexing="ij")[::-1])

    def enclose(self, brain: np.ndarray) -> np.ndarray:
        """Takes the voxels where the lattice field `brain` is positive as the brain.

        Returns:
            Their indices in the flattened volume, (n,) int64, ascending.
        """
        self.inside = self.enlarge(brain) > 0
        volume = np.zeros(self.shape, bool)
        volume[self.window] = self.inside
        return np.flatnonzero(volume)

    def enlarge(self, lattice: np.ndarray) -> np.ndarray:
        """Interpolates a lattice field on the voxels of the window, cubically, one axis first."""
        z, y, x = self.inside.shape
        flat = lattice.reshape(len(lattice), -1).astype(np.float32, copy=False)
        planes = cv2.resize(flat, (flat.shape[1], z), interpolation=cv2.INTER_CUBIC)
        fine = np.empty((z, y, x), np.float32)
        for target, plane in zip(fine, planes.reshape(z, *lattice.shape[1:]), strict=True):
            cv2.resize(plane, (x, y), dst=target, interpolation=cv2.INTER_CUBIC)
        return fine

    def at_brain(self, lattice: np.ndarray) -> np.ndarray:
        """Interpolates a lattice field at the voxels of the brain, (n,) float32."""
        return self.enlarge(lattice)[self.inside]


def ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """Rises from 0 to 1 across a border at `distance` 0 that is `width` wide, both in mm."""
    return np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)


def noise(rng: np.random.Generator, mm: float) -> np.ndarray:
    """Draws a lattice field of mean 0 and deviation 1 that is smooth over `mm`."""
    field = gaussian_filter(rng.standard_normal(_LATTICE, dtype=np.float32), mm / _LATTICE_MM)
    return (field - field.mean()) / field.std()


def smooth_max(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Takes the larger of two fields, rounded where they differ by less than `k`: the polynomial
    smooth maximum of implicit modelling."""
    near = np.maximum(k - np.abs(a - b), 0) / k
    return np.maximum(a, b) + near * near * (k / 4)


def ellipsoid(at: Sequence[np.ndarray] | np.ndarray, centre: _Point, radii: _Point) -> np.ndarray:
    """Measures the depth below the surface of an ellipsoid in mm, negative outside, to first
    order: k (1 - k) / |grad k| with k the distance from the centre in radii."""
    parts = [(axis - c) / r for axis, c, r in zip(at, centre, radii, strict=True)]
    k = np.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2)
    slopes = [part / r for part, r in zip(parts, radii, strict=True)]
    slope = np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2)
    return np.maximum(k, 1e-3) * (1 - k) / np.maximum(slope, 1e-3 / max(radii))


def tube(
    at: Sequence[np.ndarray] | np.ndarray, *joints: tuple[float, float, float, float]
) -> np.ndarray:
    """Measures the depth inside a tube through `joints` (x, y, z, radius), mm, negative outside."""
    depth = np.full(at[0].shape, -np.inf, np.float32)
    for start, end in pairwise(joints):
        step = np.subtract(end, start)
        offsets = [axis - c for axis, c in zip(at, start[:3], strict=True)]
        along = sum(o * s for o, s in zip(offsets, step[:3], strict=True)) / (step[:3] @ step[:3])
        t = np.clip(along, 0, 1)
        squared = sum((o - t * s) ** 2 for o, s in zip(offsets, step[:3], strict=True))
        depth = np.maximum(depth, start[3] + t * step[3] - np.sqrt(squared))
    return depth
