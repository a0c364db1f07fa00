"""The tumour of a synthetic brain."""

from __future__ import annotations

import numpy as np

from brats_cache.synthetic.fields import Grid, noise, ramp

__all__ = ["tumour", "tumour_seat"]


def tumour_seat(
    rng: np.random.Generator, lattice: np.ndarray, cerebrum: np.ndarray, ventricle: np.ndarray
) -> np.ndarray:
    """Draws where a tumour grows: off the midline, below the surface, near the height of the middle
    slice more often than not.

    Args:
        rng: Draws the place.
        lattice: (3, *lattice) x, y, z, mm.
        cerebrum: Lattice field, depth below the surface of the cerebrum, mm.
        ventricle: Lattice field, depth inside the ventricles, mm.

    Returns:
        (3,) x, y, z, mm.
    """
    x, _, z = lattice
    possible = (cerebrum > 10) & (ventricle < -6) & (np.abs(x) > 14)
    weights = possible * np.exp(-(((z - 6) / 32) ** 2) / 2)
    # The shortest of exponential waits falls on a point with its weight's share of the chances; a
    # draw for each point keeps the choice where another shape moves the weights a little.
    waits = np.full(weights.shape, np.inf)
    np.divide(rng.exponential(size=weights.shape), weights, out=waits, where=weights > 0)
    return lattice.reshape(3, -1)[:, np.argmin(waits)]


def tumour(
    rng: np.random.Generator,
    grid: Grid,
    seat: np.ndarray,
    radius: float,
    white: np.ndarray,
    chamber: np.ndarray,
    room: np.ndarray,
    *,
    high_grade: bool,
) -> dict[str, np.ndarray]:
    """Grows a tumour.

    A tilted ellipsoid with a noisy surface is the core; oedema reaches out from it, farther along
    white matter than into the cortex. A core of high grade has an enhancing rim of uneven, in
    places vanishing thickness around dead tissue.

    Args:
        rng: Draws its form.
        grid: The grid of the volume.
        seat: (3,) its centre, mm.
        radius: Of the core, mm.
        white: (n,) fraction of white matter.
        chamber: (n,) fraction of ventricle.
        room: (n,) fraction of a voxel where it may grow.
        high_grade: Whether it has an enhancing rim.

    Returns:
        The fields of `Anatomy` that describe a tumour, by name.
    """
    soft = 0.7 * grid.voxel_mm
    tilt, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    ratios = np.exp(rng.normal(0, 0.22, 3))
    offset = np.einsum("ij,jzyx->izyx", tilt, grid.lattice - seat[:, None, None, None])
    stretched = offset / ratios[:, None, None, None]
    bumps = radius * (0.20 * noise(rng, 8) + 0.05 * noise(rng, 4))
    depth = grid.at_brain(radius - np.sqrt((stretched**2).sum(axis=0)) + bumps)
    core = ramp(depth, soft) * room

    reach = rng.uniform(8.0, 24.0) if high_grade else rng.uniform(10.0, 20.0)
    spread = grid.at_brain(np.clip(1 + 0.45 * noise(rng, 9), 0.1, 2.0) * reach)
    within = depth + spread * (0.4 + 0.6 * white)
    halo = ramp(within, soft + 1.5) * room * (1 - chamber)
    oedema = halo * (1 - core)
    rim_mm = grid.at_brain(np.clip(rng.uniform(2.0, 4.5) + 1.6 * noise(rng, 5), 0, None))
    inner = ramp(depth - rim_mm, soft)
    nothing = np.zeros_like(core)

    labels = np.where(halo > 0.5, np.uint8(2), np.uint8(0))
    labels[core > 0.5] = 1
    if high_grade:
        labels[(core > 0.5) & (inner <= 0.5)] = 4
    return {
        "oedema": oedema,
        "graded": np.clip(within / np.float32(0.6 * reach), 0, 1),
        "necrosis": core * inner if high_grade else nothing,
        "rim": core * (1 - inner) if high_grade else nothing,
        "solid": nothing if high_grade else core,
        "mottle": grid.at_brain(noise(rng, 3.5)),
        "labels": labels,
    }
