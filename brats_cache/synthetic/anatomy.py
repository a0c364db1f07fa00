"""The anatomy of one synthetic head: folded cortex, ventricles, deep nuclei, vessels and a tumour.

Everything is measured in millimetres of a field of view of 240 x 240 x 155 mm, so a coarser volume
shows the same head on larger voxels. What is smooth (the outline of the brain, distances to the
ventricles, the tumour) is computed on a 4 mm lattice and enlarged; what is fine (the folds) is
looked up voxel by voxel, and only for the voxels of the brain. No intensities here: `phantom` turns
these fractions of tissue into images.

Arrays are canonical, [z, y, x] towards superior, posterior, left; coordinates x, y, z are mm from
the middle of the brain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brats_cache.synthetic.cortex import RADII, bridge, tissues
from brats_cache.synthetic.fields import Grid, ellipsoid, noise, ramp, smooth_max, tube
from brats_cache.synthetic.tumour import tumour, tumour_seat

__all__ = ["Anatomy", "make_anatomy"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Anatomy:
    """The tissues of the n voxels of one brain. Fractions are (n,) float32, 0 to 1.

    Attributes:
        voxels: (n,) int64, indices into the flattened canonical volume, ascending.
        csf: Fraction of fluid; adds to 1 with `grey` and `white`.
        grey: Fraction of grey matter.
        white: Fraction of white matter.
        vessel: Fraction of what takes up contrast agent in a healthy head.
        lesion: White-matter hyperintensity of age, around the ventricles and scattered.
        bias: (4, n) float32, smooth random fields of mean 0 and deviation 1.
        oedema: Fraction of swollen tissue.
        graded: How far in from the outer border of the oedema a voxel lies.
        necrosis: Fraction of the core that is dead.
        rim: Fraction of the core that enhances.
        solid: Fraction of the core that does not enhance.
        mottle: (n,) float32, texture of the tumour, of mean 0 and deviation 1.
        labels: (n,) uint8, BraTS labels 0, 1, 2, 4.
    """

    voxels: np.ndarray
    csf: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    vessel: np.ndarray
    lesion: np.ndarray
    bias: np.ndarray
    oedema: np.ndarray
    graded: np.ndarray
    necrosis: np.ndarray
    rim: np.ndarray
    solid: np.ndarray
    mottle: np.ndarray
    labels: np.ndarray


def make_anatomy(
    rng: np.random.Generator, shape: tuple[int, int, int], *, high_grade: bool
) -> Anatomy:
    """Draws one head; it depends on `rng` alone, so every shape shows the same one.

    Args:
        rng: Draws everything.
        shape: (Z, Y, X) voxels over a field of view of 155 x 240 x 240 mm.
        high_grade: Whether the tumour has an enhancing rim.
    """
    grid = Grid(shape)
    at = _pose(rng, grid.lattice)
    cerebrum, hindbrain = _outline(at)
    cerebrum += 0.8 * noise(rng, 7)
    swelling = rng.uniform(-1.0, 2.5)  # of the ventricles, in mm; they widen with age
    seat = tumour_seat(rng, grid.lattice, cerebrum, _ventricles(at) + swelling)
    radius = rng.uniform(10.0, 24.0) if high_grade else rng.uniform(7.0, 13.0)
    at = _push_aside(at, grid.lattice - seat[:, None, None, None], radius)

    # Skull stripping leaves a ragged border and keeps the fluid between the parts.
    ragged = smooth_max(cerebrum, hindbrain, 14.0) + 0.8 + 0.8 * noise(rng, 4)
    voxels = grid.enclose(ragged)
    position = np.stack([grid.at_brain(axis) for axis in at])
    depths = grid.at_brain(cerebrum), grid.at_brain(hindbrain)
    ventricle = grid.at_brain(_ventricles(at) + swelling)
    chamber = ramp(ventricle, 0.7 * grid.voxel_mm)
    csf, grey, white = tissues(
        rng, grid, position, depths, chamber, _dome(at), grid.at_brain(_deep_grey(at))
    )

    # A tumour crosses to the other hemisphere through the corpus callosum alone.
    same_side = np.maximum(position[0] * np.sign(seat[0]) + 1, bridge(position) - 4)
    room = ramp(same_side, 2.0) * ramp(depths[0] - 0.8, 1.5)
    return Anatomy(
        voxels=voxels,
        csf=csf,
        grey=grey,
        white=white,
        vessel=_vessels(rng, grid, position, np.maximum(*depths), csf, chamber),
        lesion=_lesions(rng, grid, ventricle, white),
        bias=np.stack([grid.at_brain(noise(rng, 40)) for _ in range(4)]),
        **tumour(rng, grid, seat, radius, white, chamber, room, high_grade=high_grade),
    )


def _pose(rng: np.random.Generator, lattice: np.ndarray) -> np.ndarray:
    """Lattice coordinates in the head's own frame: a size, a small turn and a smooth distortion, as
    remain after registration to an atlas."""
    x, y, z = lattice
    about_z, about_x = np.radians(rng.normal(0, 2.0, 2))
    x, y = np.cos(about_z) * x - np.sin(about_z) * y, np.sin(about_z) * x + np.cos(about_z) * y
    y, z = np.cos(about_x) * y - np.sin(about_x) * z, np.sin(about_x) * y + np.cos(about_x) * z
    x = x * (1 - 0.10 * np.tanh(y / 60))  # a brain is narrower in front
    scale = rng.uniform(0.96, 1.04, 3)
    distortion = [2.2 * noise(rng, 24) for _ in range(3)]
    return np.stack([axis / s + d for axis, s, d in zip((x, y, z), scale, distortion, strict=True)])


def _push_aside(at: np.ndarray, offset: np.ndarray, radius: float) -> np.ndarray:
    """Mass effect: what lay within `radius` of a tumour's seat now lies outside of it. `offset`
    is (3, *_LATTICE) mm from the seat."""
    pull = 0.45 * np.exp(-(offset**2).sum(axis=0) / (2 * (1.6 * radius) ** 2))
    return at - offset * pull


def _dome(at: np.ndarray) -> np.ndarray:
    """Depth below the convex surface of the hemispheres, which carries the folds."""
    return ellipsoid(at, (0, 0, 5), RADII)


def _outline(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth below the surface of the cerebrum, and of cerebellum with brain stem."""
    mirrored = np.abs(at[0]), at[1], at[2]
    dome = -smooth_max(-_dome(at), -(at[2] + 28), 14.0)
    temporal_lobes = ellipsoid(mirrored, (42, -10, -32), (21, 37, 22))
    cerebellum = ellipsoid(mirrored, (23, 50, -45), (30, 34, 22))
    stem = ellipsoid(at, (0, 21, -55), (14, 13, 52))
    return smooth_max(dome, temporal_lobes, 10.0), smooth_max(cerebellum, stem, 8.0)


def _ventricles(at: np.ndarray) -> np.ndarray:
    """Depth inside the lateral, third and fourth ventricles."""
    mirrored = np.abs(at[0]), at[1], at[2]
    body = (14, 24, 14, 4.5)
    atrium = (25, 38, 4, 5.5)
    return np.maximum.reduce(
        [
            tube(mirrored, (16, -36, 2, 2.5), (8.5, -18, 12, 4), (8.5, 2, 17, 4), body),
            tube(mirrored, body, atrium, (24, 60, -2, 1.5)),
            tube(mirrored, atrium, (33, 14, -22, 1.5)),
            tube(at, (0, -6, -2, 1.5), (0, 12, -4, 1.5)),
            tube(at, (0, 38, -38, 3.5), (0, 40, -50, 3)),
        ]
    )


def _deep_grey(at: np.ndarray) -> np.ndarray:
    """Depth inside caudate, putamen and thalamus."""
    mirrored = np.abs(at[0]), at[1], at[2]
    return np.maximum.reduce(
        [
            tube(mirrored, (16, -25, 1, 5.5), (19, 4, 15, 3.5)),
            ellipsoid(mirrored, (28, -2, 0), (6.5, 19, 13)),
            ellipsoid(mirrored, (11, 15, 0), (9, 14, 11)),
        ]
    )


def _vessels(
    rng: np.random.Generator,
    grid: Grid,
    position: np.ndarray,
    outer: np.ndarray,
    csf: np.ndarray,
    chamber: np.ndarray,
) -> np.ndarray:
    """Sagittal sinus, vessels of the sulci and choroid plexus, as a fraction (n,)."""
    x, y, z = position
    speckle = grid.at_brain(noise(rng, 3))
    sinus = ramp(2.5 - np.abs(x), 2) * ramp(5 - outer, 3) * ramp(z + 10, 10) * ramp(y + 60, 20)
    sulcal = ramp(speckle - 1.9, 0.8) * (csf > 0.4) * (1 - chamber)
    choroid = ramp(speckle - 0.6, 0.8) * chamber * ramp(12 - np.abs(y - 36), 6)
    return np.maximum.reduce([sinus, 0.7 * sulcal, 0.8 * choroid])


def _lesions(
    rng: np.random.Generator, grid: Grid, ventricle: np.ndarray, white: np.ndarray
) -> np.ndarray:
    """Caps of the ventricles and scattered spots, (n,): as bright on FLAIR as a faint oedema."""
    load = rng.uniform(0.1, 1.0)
    caps = np.exp(np.minimum(ventricle, 0) / np.float32(2.0 + 2.5 * load)) * load
    spots = ramp(grid.at_brain(noise(rng, 3.5)) - (2.9 - 0.8 * load), 0.5)
    return np.maximum(caps, spots) * white
