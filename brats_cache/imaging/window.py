"""The box of a volume that holds all of its voxels that are not zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Window"]


@dataclass(frozen=True, kw_only=True)
class Window:
    """A box of a volume outside which everything is 0.

    Attributes:
        shape: (Z, Y, X) of the whole volume.
        box: Its slices along Z, Y and X, with bounds and without steps.
    """

    shape: tuple[int, int, int]
    box: tuple[slice, slice, slice]

    @classmethod
    def around(cls, inside: np.ndarray) -> Window:
        """Finds the smallest box that holds all of a (Z, Y, X) array that is not 0."""
        depth, height, width = inside.shape
        z = _bounds(np.array([np.count_nonzero(one) for one in inside]))
        plane = np.logical_or.reduce(inside[z], axis=0)
        lines, columns = (np.logical_or.reduce(plane, axis=axis) for axis in (1, 0))
        box = (z, _bounds(lines), _bounds(columns))
        return cls(shape=(depth, height, width), box=box)

    @classmethod
    def whole(cls, shape: tuple[int, int, int]) -> Window:
        """Returns the window that is all of a volume."""
        depth, height, width = shape
        return cls(shape=shape, box=(slice(0, depth), slice(0, height), slice(0, width)))

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """Returns the window of a whole (Z, Y, X) volume, as a view."""
        return volume[self.box]

    def index(self, z: int) -> int | None:
        """Returns the index in the window of a slice of the whole, None for one outside."""
        inside = self.box[0]
        return z - inside.start if inside.start <= z < inside.stop else None


def _bounds(line: np.ndarray) -> slice:
    """The slice from the first to the last of (n,) values that are not 0, 0:0 where all are."""
    indices = np.flatnonzero(line)
    return slice(int(indices[0]), int(indices[-1]) + 1) if indices.size else slice(0, 0)
