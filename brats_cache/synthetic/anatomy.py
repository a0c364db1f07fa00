"""The geometry of one synthetic head: folded cortex, ventricles, deep nuclei, vessels and a tumour.

Everything is measured in millimetres of a field of view of 240 x 240 x 155 mm, so a coarser volume
shows the same head on larger voxels. What is smooth (the outline of the brain, distances to the
ventricles, the tumour) is computed on a 4 mm lattice and enlarged; what is fine (the folds) is
looked up voxel by voxel, and only for the voxels of the brain. No intensities here: `phantom` turns
these fractions of tissue into images.

Arrays are canonical, [z, y, x] towards superior, posterior, left; coordinates x, y, z are mm from
the middle of the brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

__all__ = ["Anatomy", "make_anatomy"]

_Point = tuple[float, float, float]
_FIELD_MM = (155.0, 240.0, 240.0)
_CENTRE_MM = (72.0, 124.0, 119.5)
_WINDOW_MM = ((0.0, 148.0), (28.0, 220.0), (46.0, 194.0))  # holds every brain, its margin included
_LATTICE_MM = 4.0
_LATTICE = (37, 48, 37)  # steps of _LATTICE_MM through the window
_RADII = (66.0, 87.0, 58.0)  # of the cerebrum: x, y, z
_FOLD_SIZE = 320  # pixels along a side of the map of folds of one hemisphere
_FOLD_REACH = 1.46  # a hemisphere is a disc of radius sqrt(2) on that map; the rest is margin
_FOLD_MM = 71.0 * 2 * _FOLD_REACH / _FOLD_SIZE  # a pixel of that map at the surface of the brain


@dataclass(frozen=True, kw_only=True, eq=False)
class Anatomy:
    """Where what is, for the n voxels of one brain. Fractions are float32 in [0, 1].

    voxels           (n,) int64, places in the flattened canonical volume, ascending
    csf, grey, white (n,) the healthy tissue, adding to 1
    vessel           (n,) what takes up contrast agent in a healthy head
    lesion           (n,) white-matter hyperintensity of age, around the ventricles and scattered
    bias             (4, n) smooth random fields, mean 0, deviation 1
    oedema           (n,) swollen tissue, and `graded` how far in from its outer border it lies
    necrosis, rim, solid  (n,) the parts of the tumour's core: dead, enhancing, non-enhancing
    mottle           (n,) texture of the tumour, mean 0, deviation 1
    labels           (n,) uint8, BraTS labels 0, 1, 2, 4
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


class _Grid:
    """The voxels of the window around the brain, and the lattice of smooth things over it."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        """`shape` is (Z, Y, X). `lattice` becomes the (3, *_LATTICE) coordinates x, y, z."""
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
        """Takes the voxels where the lattice field `brain` is positive as the brain and returns
        their places in the flattened volume."""
        self.inside = self.enlarge(brain) > 0
        volume = np.zeros(self.shape, bool)
        volume[self.window] = self.inside
        return np.flatnonzero(volume)

    def enlarge(self, lattice: np.ndarray) -> np.ndarray:
        """A lattice field on the voxels of the window, by cubic interpolation, one axis first."""
        z, y, x = self.inside.shape
        flat = lattice.reshape(len(lattice), -1).astype(np.float32, copy=False)
        planes = cv2.resize(flat, (flat.shape[1], z), interpolation=cv2.INTER_CUBIC)
        fine = np.empty((z, y, x), np.float32)
        for target, plane in zip(fine, planes.reshape(z, *lattice.shape[1:]), strict=True):
            cv2.resize(plane, (x, y), dst=target, interpolation=cv2.INTER_CUBIC)
        return fine

    def at_brain(self, lattice: np.ndarray) -> np.ndarray:
        """A lattice field at the voxels of the brain, (n,) float32."""
        return self.enlarge(lattice)[self.inside]


def make_anatomy(
    rng: np.random.Generator, shape: tuple[int, int, int], *, high_grade: bool
) -> Anatomy:
    """Draws one head. `shape` is (Z, Y, X) voxels over a field of view of 155 x 240 x 240 mm; what
    is drawn depends on `rng` alone, so every shape shows the same head."""
    grid = _Grid(shape)
    at = _pose(rng, grid.lattice)
    cerebrum, hindbrain = _outline(at)
    cerebrum += 0.8 * _noise(rng, 7)
    swelling = rng.uniform(-1.0, 2.5)  # of the ventricles, in mm; they widen with age
    seat = _tumour_seat(rng, grid.lattice, cerebrum, _ventricles(at) + swelling)
    radius = rng.uniform(10.0, 24.0) if high_grade else rng.uniform(7.0, 13.0)
    at = _push_aside(at, grid.lattice - seat[:, None, None, None], radius)

    # Skull stripping leaves a ragged border and keeps the fluid between the parts.
    ragged = _smooth_max(cerebrum, hindbrain, 14.0) + 0.8 + 0.8 * _noise(rng, 4)
    voxels = grid.enclose(ragged)
    place = np.stack([grid.at_brain(axis) for axis in at])
    depths = grid.at_brain(cerebrum), grid.at_brain(hindbrain)
    ventricle = grid.at_brain(_ventricles(at) + swelling)
    chamber = _ramp(ventricle, 0.7 * grid.voxel_mm)
    csf, grey, white = _tissues(
        rng, grid, place, depths, chamber, _dome(at), grid.at_brain(_deep_grey(at))
    )

    # A tumour crosses to the other hemisphere through the corpus callosum alone.
    same_side = np.maximum(place[0] * np.sign(seat[0]) + 1, _bridge(place) - 4)
    room = _ramp(same_side, 2.0) * _ramp(depths[0] - 0.8, 1.5)
    return Anatomy(
        voxels=voxels,
        csf=csf,
        grey=grey,
        white=white,
        vessel=_vessels(rng, grid, place, np.maximum(*depths), csf, chamber),
        lesion=_lesions(rng, grid, ventricle, white),
        bias=np.stack([grid.at_brain(_noise(rng, 40)) for _ in range(4)]),
        **_tumour(rng, grid, seat, radius, white, chamber, room, high_grade=high_grade),
    )


def _ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """0 to 1 across a border at `distance` 0 that is `width` wide, both in mm."""
    return np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)


def _noise(rng: np.random.Generator, mm: float) -> np.ndarray:
    """A random lattice field, mean 0, deviation 1, smooth over `mm`."""
    field = gaussian_filter(rng.standard_normal(_LATTICE, dtype=np.float32), mm / _LATTICE_MM)
    return (field - field.mean()) / field.std()


def _smooth_max(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """The larger of two fields, rounded where they differ by less than `k`: the polynomial smooth
    maximum of implicit modelling."""
    near = np.maximum(k - np.abs(a - b), 0) / k
    return np.maximum(a, b) + near * near * (k / 4)


def _ellipsoid(at: Sequence[np.ndarray] | np.ndarray, centre: _Point, radii: _Point) -> np.ndarray:
    """Depth below the surface of an ellipsoid in mm, negative outside, to first order:
    k (1 - k) / |grad k| with k the distance from the centre in radii."""
    parts = [(axis - c) / r for axis, c, r in zip(at, centre, radii, strict=True)]
    k = np.sqrt(parts[0] ** 2 + parts[1] ** 2 + parts[2] ** 2)
    slopes = [part / r for part, r in zip(parts, radii, strict=True)]
    slope = np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2)
    return np.maximum(k, 1e-3) * (1 - k) / np.maximum(slope, 1e-3 / max(radii))


def _tube(
    at: Sequence[np.ndarray] | np.ndarray, *joints: tuple[float, float, float, float]
) -> np.ndarray:
    """Depth inside a tube through `joints` (x, y, z, radius) in mm, negative outside."""
    depth = np.full(at[0].shape, -np.inf, np.float32)
    for start, end in pairwise(joints):
        step = np.subtract(end, start)
        offsets = [axis - c for axis, c in zip(at, start[:3], strict=True)]
        along = sum(o * s for o, s in zip(offsets, step[:3], strict=True)) / (step[:3] @ step[:3])
        t = np.clip(along, 0, 1)
        squared = sum((o - t * s) ** 2 for o, s in zip(offsets, step[:3], strict=True))
        depth = np.maximum(depth, start[3] + t * step[3] - np.sqrt(squared))
    return depth


def _pose(rng: np.random.Generator, lattice: np.ndarray) -> np.ndarray:
    """Coordinates in the head's own frame: a size, a small turn and a smooth distortion, as remain
    after registration to an atlas."""
    x, y, z = lattice
    about_z, about_x = np.radians(rng.normal(0, 2.0, 2))
    x, y = np.cos(about_z) * x - np.sin(about_z) * y, np.sin(about_z) * x + np.cos(about_z) * y
    y, z = np.cos(about_x) * y - np.sin(about_x) * z, np.sin(about_x) * y + np.cos(about_x) * z
    x = x * (1 - 0.10 * np.tanh(y / 60))  # a brain is narrower in front
    scale = rng.uniform(0.96, 1.04, 3)
    distortion = [2.2 * _noise(rng, 24) for _ in range(3)]
    return np.stack([axis / s + d for axis, s, d in zip((x, y, z), scale, distortion, strict=True)])


def _push_aside(at: np.ndarray, offset: np.ndarray, radius: float) -> np.ndarray:
    """Mass effect: what lay within `radius` of a tumour's seat now lies outside of it. `offset`
    is (3, *_LATTICE) mm from the seat."""
    pull = 0.45 * np.exp(-(offset**2).sum(axis=0) / (2 * (1.6 * radius) ** 2))
    return at - offset * pull


def _dome(at: np.ndarray) -> np.ndarray:
    """Depth below the convex surface of the hemispheres, which carries the folds."""
    return _ellipsoid(at, (0, 0, 5), _RADII)


def _outline(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth below the surface of the cerebrum, and of cerebellum with brain stem."""
    mirrored = np.abs(at[0]), at[1], at[2]
    dome = -_smooth_max(-_dome(at), -(at[2] + 28), 14.0)
    temporal_lobes = _ellipsoid(mirrored, (42, -10, -32), (21, 37, 22))
    cerebellum = _ellipsoid(mirrored, (23, 50, -45), (30, 34, 22))
    stem = _ellipsoid(at, (0, 21, -55), (14, 13, 52))
    return _smooth_max(dome, temporal_lobes, 10.0), _smooth_max(cerebellum, stem, 8.0)


def _ventricles(at: np.ndarray) -> np.ndarray:
    """Depth inside the lateral, third and fourth ventricles."""
    mirrored = np.abs(at[0]), at[1], at[2]
    body = (14, 24, 14, 4.5)
    atrium = (25, 38, 4, 5.5)
    return np.maximum.reduce(
        [
            _tube(mirrored, (16, -36, 2, 2.5), (8.5, -18, 12, 4), (8.5, 2, 17, 4), body),
            _tube(mirrored, body, atrium, (24, 60, -2, 1.5)),
            _tube(mirrored, atrium, (33, 14, -22, 1.5)),
            _tube(at, (0, -6, -2, 1.5), (0, 12, -4, 1.5)),
            _tube(at, (0, 38, -38, 3.5), (0, 40, -50, 3)),
        ]
    )


def _deep_grey(at: np.ndarray) -> np.ndarray:
    """Depth inside caudate, putamen and thalamus."""
    mirrored = np.abs(at[0]), at[1], at[2]
    return np.maximum.reduce(
        [
            _tube(mirrored, (16, -25, 1, 5.5), (19, 4, 15, 3.5)),
            _ellipsoid(mirrored, (28, -2, 0), (6.5, 19, 13)),
            _ellipsoid(mirrored, (11, 15, 0), (9, 14, 11)),
        ]
    )


def _bridge(at: np.ndarray) -> np.ndarray:
    """Depth inside the zone around corpus callosum and thalamus where the hemispheres are joined,
    as it projects on the midline."""
    return 24 * (1 - np.sqrt(((at[1] - 3) / 40) ** 2 + (at[2] / 24) ** 2))


def _fold_map(rng: np.random.Generator) -> np.ndarray:
    """Where the sulci run: (_FOLD_SIZE, 2 * _FOLD_SIZE, 3) float32, left hemisphere beside right,
    with distance to the nearest sulcus, its depth and its half-width, in mm at the surface.

    The sulci are the zero lines of band-limited noise, which wind and branch at a nearly constant
    spacing; the lateral sulcus, present in every brain, is drawn in.
    """
    size = _FOLD_SIZE
    noise = rng.standard_normal((3, size, 2 * size), dtype=np.float32)
    band = cv2.GaussianBlur(noise[0], (0, 0), 3.1 / _FOLD_MM)
    band -= cv2.GaussianBlur(noise[0], (0, 0), 5.8 / _FOLD_MM)
    positive = (band > 0).astype(np.uint8)
    distance = _distance_to_zero(positive) + _distance_to_zero(1 - positive) - 0.5

    lateral = np.ones((size, 2 * size), np.uint8)
    course = np.array([(-0.42, -0.42), (-0.18, -0.15), (-0.08, 0.12), (0.10, 0.34)])  # (z, y)
    line = np.round((course / _FOLD_REACH + 1) * (size / 2)).astype(np.int32)
    for start in (0, size):
        cv2.polylines(lateral, [np.add(line, (start, 0))], isClosed=False, color=0)
    to_lateral = _distance_to_zero(lateral) * _FOLD_MM
    near = np.exp(-((to_lateral / 5) ** 2))

    smooth = [cv2.GaussianBlur(plane, (0, 0), 6 / _FOLD_MM) for plane in noise[1:]]
    depth, width = (plane / plane.std() for plane in smooth)
    return np.dstack(
        [
            np.minimum(distance * _FOLD_MM, to_lateral),
            np.clip(14 + 5 * depth, 4, 24) * (1 - near) + 28 * near,
            np.clip(0.2 + 0.4 * width, -0.5, 1.2) + 0.8 * near,
        ]
    )


def _distance_to_zero(flags: np.ndarray) -> np.ndarray:
    return cv2.distanceTransform(flags, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _look_up_folds(folds: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(3, n): the fold map at the direction of each voxel as seen from the middle of the brain,
    by Lambert's azimuthal equal-area projection of each hemisphere onto a disc; distances shrink
    with the radius."""
    x, y, z = (axis / np.float32(r) for axis, r in zip(place, _RADII, strict=True))
    radius = np.maximum(np.sqrt(x * x + y * y + z * z), np.float32(0.05))
    scale = np.sqrt(2 / (1 + np.abs(x) / radius)) / (radius * np.float32(_FOLD_REACH))
    half = np.float32(_FOLD_SIZE / 2)
    rows = (y * scale + 1) * half
    columns = (z * scale + 1) * half + np.float32(_FOLD_SIZE) * (x > 0)
    num_voxels = len(rows)
    width = 1024  # OpenCV takes an image with sides below 32768, not a list
    padded = np.zeros((2, -(-num_voxels // width) * width), np.float32)
    padded[0, :num_voxels], padded[1, :num_voxels] = columns, rows
    map_x, map_y = padded.reshape(2, -1, width)
    image = cv2.remap(folds, map_x, map_y, cv2.INTER_LINEAR)
    looked_up = image.reshape(-1, 3)[:num_voxels].T.copy()
    looked_up[[0, 2]] *= radius
    return looked_up


def _tissues(
    rng: np.random.Generator,
    grid: _Grid,
    place: np.ndarray,
    depths: tuple[np.ndarray, np.ndarray],
    chamber: np.ndarray,
    dome: np.ndarray,
    nucleus: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fractions of fluid, grey and white matter, each (n,). `depths` below the surfaces of cerebrum
    and hindbrain, `chamber` the fraction of ventricle, `nucleus` the depth inside deep grey."""
    soft = 0.7 * grid.voxel_mm  # partial volume blurs a border over about a voxel
    fluid_mm = 0.4 + np.clip(rng.normal(0.3, 0.5), 0, 1.5) + 0.4 * grid.at_brain(_noise(rng, 12))
    distance, sulcus_depth, half_width = _look_up_folds(_fold_map(rng), place)
    midline = np.hypot(place[0], np.maximum(_bridge(place), 0))  # distance to the fissure
    below = np.minimum(grid.at_brain(dome), midline + 8) - sulcus_depth
    sulcal = np.hypot(distance, np.maximum(below, 0)) - half_width
    cortex = np.minimum.reduce([depths[0] - fluid_mm, midline - 0.7, sulcal])

    # The cerebellum folds into thin parallel leaves.
    x, y, z = place
    leaves = np.sin((z + 0.35 * np.abs(x) + 0.2 * y) * np.float32(2 * np.pi / 4.6))
    folia = np.minimum(depths[1] - fluid_mm, 4.5 + 2.2 * leaves - 0.25 * (12 - depths[1]))
    folia = np.where(_ramp(np.hypot(x, y - 18) - 15, 4) > 0.5, folia, depths[1] - fluid_mm)
    pial = np.where(depths[0] > depths[1], cortex, folia)

    csf = _ramp(-pial, soft)
    csf += chamber * (1 - csf)
    white = _ramp(pial - 2.5, soft + 0.5) * (1 - 0.6 * _ramp(nucleus, soft + 1.0))
    white *= 1 - csf
    return csf, 1 - csf - white, white


def _vessels(
    rng: np.random.Generator,
    grid: _Grid,
    place: np.ndarray,
    outer: np.ndarray,
    csf: np.ndarray,
    chamber: np.ndarray,
) -> np.ndarray:
    """Sagittal sinus, vessels of the sulci and choroid plexus, as a fraction (n,)."""
    x, y, z = place
    speckle = grid.at_brain(_noise(rng, 3))
    sinus = _ramp(2.5 - np.abs(x), 2) * _ramp(5 - outer, 3) * _ramp(z + 10, 10) * _ramp(y + 60, 20)
    sulcal = _ramp(speckle - 1.9, 0.8) * (csf > 0.4) * (1 - chamber)
    choroid = _ramp(speckle - 0.6, 0.8) * chamber * _ramp(12 - np.abs(y - 36), 6)
    return np.maximum.reduce([sinus, 0.7 * sulcal, 0.8 * choroid])


def _lesions(
    rng: np.random.Generator, grid: _Grid, ventricle: np.ndarray, white: np.ndarray
) -> np.ndarray:
    """Caps of the ventricles and scattered spots, (n,): as bright on FLAIR as a faint oedema."""
    load = rng.uniform(0.1, 1.0)
    caps = np.exp(np.minimum(ventricle, 0) / np.float32(2.0 + 2.5 * load)) * load
    spots = _ramp(grid.at_brain(_noise(rng, 3.5)) - (2.9 - 0.8 * load), 0.5)
    return np.maximum(caps, spots) * white


def _tumour_seat(
    rng: np.random.Generator, lattice: np.ndarray, cerebrum: np.ndarray, ventricle: np.ndarray
) -> np.ndarray:
    """Where a tumour grows, (3,) mm: off the midline, below the surface, near the height of the
    middle slice more often than not."""
    x, _, z = lattice
    possible = (cerebrum > 10) & (ventricle < -6) & (np.abs(x) > 14)
    weights = possible * np.exp(-(((z - 6) / 32) ** 2) / 2)
    # The shortest of exponential waits falls on a point with its weight's share of the chances; a
    # draw for each point keeps the choice where another shape moves the weights a little.
    waits = np.full(weights.shape, np.inf)
    np.divide(rng.exponential(size=weights.shape), weights, out=waits, where=weights > 0)
    return lattice.reshape(3, -1)[:, np.argmin(waits)]


def _tumour(
    rng: np.random.Generator,
    grid: _Grid,
    seat: np.ndarray,
    radius: float,
    white: np.ndarray,
    chamber: np.ndarray,
    room: np.ndarray,
    *,
    high_grade: bool,
) -> dict[str, np.ndarray]:
    """The tumour's fields of `Anatomy`. `radius` of the core in mm; `room` (n,) where it may grow.

    A tilted ellipsoid with a noisy surface is the core; oedema reaches out from it, farther along
    white matter than into the cortex. A core of high grade has an enhancing rim of uneven, in
    places vanishing thickness around dead tissue.
    """
    soft = 0.7 * grid.voxel_mm
    tilt, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    ratios = np.exp(rng.normal(0, 0.22, 3))
    offset = np.einsum("ij,jzyx->izyx", tilt, grid.lattice - seat[:, None, None, None])
    stretched = offset / ratios[:, None, None, None]
    bumps = radius * (0.20 * _noise(rng, 8) + 0.05 * _noise(rng, 4))
    depth = grid.at_brain(radius - np.sqrt((stretched**2).sum(axis=0)) + bumps)
    core = _ramp(depth, soft) * room

    reach = rng.uniform(8.0, 24.0) if high_grade else rng.uniform(10.0, 20.0)
    spread = grid.at_brain(np.clip(1 + 0.45 * _noise(rng, 9), 0.1, 2.0) * reach)
    within = depth + spread * (0.4 + 0.6 * white)
    halo = _ramp(within, soft + 1.5) * room * (1 - chamber)
    oedema = halo * (1 - core)
    rim_mm = grid.at_brain(np.clip(rng.uniform(2.0, 4.5) + 1.6 * _noise(rng, 5), 0, None))
    inner = _ramp(depth - rim_mm, soft)
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
        "mottle": grid.at_brain(_noise(rng, 3.5)),
        "labels": labels,
    }
