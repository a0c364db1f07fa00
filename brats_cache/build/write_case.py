"""Prepares and writes the rows of one case, in a worker process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import xxhash

from brats_cache.build.case_voxels import KEPT_CASES, CaseVoxels, read_voxels
from brats_cache.build.plan import PlannedCase
from brats_cache.build.writer import Layout, write_all
from brats_cache.common.errors import BratsError, printable
from brats_cache.imaging.labels import canonical_table
from brats_cache.imaging.preprocess import Preparation, fit_masks, prepare_images

__all__ = ["WriteTask", "write_case"]

_SLICES_AT_ONCE = 8  # 4 MiB of images, which stay in the processor's cache until they are written


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """One case to write, as sent to a worker process.

    Attributes:
        path: The file under construction.
        layout: Where the rows are in it.
        case: The case and its rows.
        preparation: How the images are prepared.
    """

    path: Path
    layout: Layout
    case: PlannedCase
    preparation: Preparation


def write_case(task: WriteTask) -> int:
    """Prepares and writes the image rows and mask rows of one case.

    Args:
        task: The case and the file.

    Returns:
        The xxh3_64 of the bytes of its image rows, then of its mask rows.

    Raises:
        DataFaults: A scan has changed since it was surveyed.
        BratsError: The file cannot be written.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    case, layout, digest = task.case, task.layout, xxhash.xxh3_64()
    voxels = KEPT_CASES.take(case.survey) or read_voxels(case.survey)
    descriptor = os.open(task.path, os.O_WRONLY)
    try:
        image_range, mask_range = layout.rows(case.first_row, len(case.slices))
        offset = image_range.offset
        for images in _images(voxels, case, task.preparation):
            digest.update(images.data)
            write_all(descriptor, images, offset)
            offset += images.nbytes
        masks = _masks(voxels, case, task.preparation)
        digest.update(masks.data)
        write_all(descriptor, masks, mask_range.offset)
    except OSError as error:
        raise BratsError(
            f"{printable(task.path)}: cannot be written ({error.strerror})."
        ) from error
    finally:
        os.close(descriptor)
    return digest.intdigest()


def _images(
    voxels: CaseVoxels, case: PlannedCase, preparation: Preparation
) -> Iterator[np.ndarray]:
    """Yields the prepared images in pieces of up to 8 slices, (n, C, S, S) float16."""
    for start in range(0, len(case.slices), _SLICES_AT_ONCE):
        yield prepare_images(
            voxels.volumes,
            voxels.brain,
            case.survey.normalizations,
            preparation,
            case.slices[start : start + _SLICES_AT_ONCE],
            voxels.window,
        )


def _masks(voxels: CaseVoxels, case: PlannedCase, preparation: Preparation) -> np.ndarray:
    """Prepares the masks: (n, 1, S, S) uint8 canonical labels, all 0 for a case without a mask."""
    size, window = preparation.size, voxels.labels_window
    masks = np.zeros((len(case.slices), 1, size, size), np.uint8)
    table = canonical_table(case.scheme)
    whole = np.zeros((1, *window.shape[1:]), np.uint8)
    for mask, z in zip(masks, case.slices, strict=True):
        index = window.index(int(z))
        if index is not None:
            whole[0][window.box[1:]] = voxels.labels[index]
            mask[0] = cv2.LUT(fit_masks(whole, size, preparation.fit)[0], table)
    return masks
