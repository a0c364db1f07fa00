"""What is kept of the prediction of one case: masks, and counts of its probabilities.

It is what scores and figures are made of, and a thousandth of the size of the probabilities. It
needs numpy alone, as `case_scores` does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import region_table
from brats_train.data.selection import rows_by_rule
from brats_train.evaluation.calibration import NUM_BINS, Table, probability_table
from brats_train.inference.expected_dice import expected_dice
from brats_train.inference.postprocess import regions_of
from brats_train.models.postprocessing import Postprocessing

if TYPE_CHECKING:
    from brats_train.models.checkpoint import SegmenterSpec

__all__ = [
    "CaseMasks",
    "CaseProbabilities",
    "MaskRules",
    "decode_masks",
    "encode_masks",
    "make_masks",
    "slice_rows_of",
]

_COMPRESSION = 6  # 37 ms and 34 to 41 KB a real case of 240 x 240 x 155 voxels, three regions
_TABLE_SHAPE = (2, 3, NUM_BINS)


@dataclass(frozen=True, kw_only=True)
class MaskRules:
    """How probabilities become masks.

    Attributes:
        regions: The K regions.
        slice_rows: Rule of the rows that the slice-wise score counts, as in the recipe.
        postprocessing: How the probabilities of a volume become its masks.
        num_labels: L, the labels of whole cases that the model tells apart.
    """

    regions: tuple[str, ...]
    slice_rows: str
    postprocessing: Postprocessing
    num_labels: int = 0

    @classmethod
    def of(cls, spec: SegmenterSpec, slice_rows: str) -> MaskRules:
        """The rules of a model."""
        return cls(
            regions=spec.regions,
            slice_rows=slice_rows,
            postprocessing=spec.postprocessing,
            num_labels=len(spec.labels),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseProbabilities:
    """What a model predicts for one case.

    Attributes:
        volume: (n, K, Y, X) float32 probabilities of the case's rows on the scan's own grid, 0
            outside the brain.
        slices: (m, K, S, S) bool, the masks of the rows that the slice-wise score counts, on the
            cache's grid.
        labels: (L,) float64, the probability of each label of the case.
        agreement: (K,) float64, how far the members of the model agree.
    """

    volume: np.ndarray
    slices: np.ndarray
    labels: np.ndarray
    agreement: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseMasks:
    """What scores and figures need of the prediction of one case.

    Attributes:
        volumes: (K, Z, Y, X) bool on the scan's own grid.
        slices: As of `CaseProbabilities`.
        tables: See `calibration.probability_table`, over the cached slices, by region; none for a
            region that the case's labels do not know, nor for a case without a mask.
        labels: As of `CaseProbabilities`.
        expected_dice: (K,) float64, of the mask of each region.
    """

    volumes: np.ndarray
    slices: np.ndarray
    tables: dict[str, Table]
    labels: np.ndarray
    expected_dice: np.ndarray


def make_masks(
    cache: Cache,
    case: int,
    rules: MaskRules,
    probabilities: CaseProbabilities,
    truth: np.ndarray | None,
) -> CaseMasks:
    """Makes the masks of a case.

    Args:
        cache: Holds the case.
        case: Its number in the cache.
        rules: How.
        probabilities: What the model predicts.
        truth: (Z, Y, X) uint8 canonical labels; None for a case without a mask.
    """
    z_indices = np.asarray(cache.slices["z"][cache.row_slice(case)])
    volumes = regions_of(
        probabilities.volume, rules.regions, z_indices, cache.depth(case), rules.postprocessing
    )
    tables = {
        region: probability_table(
            probabilities.volume[:, rules.regions.index(region)],
            region_table(region)[truth[z_indices]],
        )
        for region in _known(cache, case, rules)
        if truth is not None
    }
    return CaseMasks(
        volumes=volumes,
        slices=probabilities.slices,
        tables=tables,
        labels=probabilities.labels,
        expected_dice=expected_dice(
            probabilities.volume, volumes[:, z_indices], probabilities.agreement
        ),
    )


def slice_rows_of(cache: Cache, case: int, rules: MaskRules) -> np.ndarray:
    """The rows of a case that the slice-wise score counts, (m,) int64; none without a mask.

    Raises:
        BratsError: See `rows_by_rule`.
    """
    if not cache.cases["has_mask"][case]:
        return np.zeros(0, np.int64)
    return rows_by_rule(cache, case, rules.slice_rows)


def encode_masks(masks: CaseMasks) -> bytes:
    """Packs the masks of a case: one bit per voxel, then tables, labels, expected Dice, deflated.

    Nothing describes their shapes, which follow from the case and the rules.
    """
    tables = [np.asarray(table, "<i8").tobytes() for table in masks.tables.values()]
    bits = [np.packbits(part).tobytes() for part in (masks.volumes, masks.slices)]
    numbers = [np.asarray(one, "<f8").tobytes() for one in (masks.labels, masks.expected_dice)]
    return zlib.compress(b"".join([*bits, *tables, *numbers]), _COMPRESSION)


def decode_masks(content: bytes, cache: Cache, case: int, rules: MaskRules) -> CaseMasks:
    """Undoes `encode_masks` for the same case and rules.

    Raises:
        BratsError: It is something else.
    """
    num, size = len(rules.regions), cache.shape[-1]
    volume_shape = (num, *cache.grid(case).canonical_shape)
    slices_shape = (len(slice_rows_of(cache, case, rules)), num, size, size)
    known = _known(cache, case, rules)
    lengths = [-(-int(np.prod(shape)) // 8) for shape in (volume_shape, slices_shape)]
    lengths += [8 * int(np.prod(_TABLE_SHAPE))] * len(known)
    lengths += [8 * rules.num_labels, 8 * num]
    try:
        parts = _cut(_inflate(content, sum(lengths)), lengths)
    except ValueError as error:
        raise BratsError(
            f"{cache.case_id(case)}: what eval_store of the run holds of it are no "
            f"masks ({error}). Remove that folder."
        ) from None
    return CaseMasks(
        volumes=_unpack(next(parts), volume_shape),
        slices=_unpack(next(parts), slices_shape),
        tables={
            region: np.frombuffer(next(parts), "<i8").reshape(_TABLE_SHAPE) for region in known
        },
        labels=np.frombuffer(next(parts), "<f8"),
        expected_dice=np.frombuffer(next(parts), "<f8"),
    )


def _known(cache: Cache, case: int, rules: MaskRules) -> list[str]:
    """The regions that have a table: those that the labels of the case know."""
    if not cache.cases["has_mask"][case]:
        return []
    known = cache.scheme(case).regions
    return [region for region in rules.regions if region in known]


def _inflate(content: bytes, length: int) -> bytes:
    """Exactly `length` bytes, and no more memory than that, whatever `content` is."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(content, length + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(data) != length or not inflater.eof:
        raise ValueError(f"not the {length} bytes of this case")
    return data


def _cut(data: bytes, lengths: list[int]) -> Iterator[bytes]:
    start = 0
    for length in lengths:
        yield data[start : start + length]
        start += length


def _unpack(bits: bytes, shape: tuple[int, ...]) -> np.ndarray:
    flat = np.unpackbits(np.frombuffer(bits, np.uint8), count=int(np.prod(shape)))
    return flat.view(bool).reshape(shape)
