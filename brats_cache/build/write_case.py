"""Prepares and writes the rows of one case, in a worker process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import xxhash

from brats_cache.build.plan import PlannedCase
from brats_cache.build.survey import Survey
from brats_cache.build.writer import Layout, write_all
from brats_cache.common.errors import BratsError, DataFaults, Fault, printable
from brats_cache.imaging.labels import canonical_table
from brats_cache.imaging.nifti import Contents, read_contents, read_labels, read_volume
from brats_cache.imaging.nifti_header import read_header
from brats_cache.imaging.preprocess import Preparation, brain_of, fit_masks, prepare_images

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
    volumes, labels = _read_scans(case.survey)
    descriptor = os.open(task.path, os.O_WRONLY)
    try:
        image_range, mask_range = layout.rows(case.first_row, len(case.slices))
        offset = image_range.offset
        for images in _images(volumes, case, task.preparation):
            digest.update(images.data)
            write_all(descriptor, images, offset)
            offset += images.nbytes
        masks = _masks(labels, case, task.preparation)
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
    volumes: list[np.ndarray], case: PlannedCase, preparation: Preparation
) -> Iterator[np.ndarray]:
    """Yields the prepared images in pieces of up to 8 slices, (n, C, S, S) float16."""
    brain = brain_of(volumes)
    for start in range(0, len(case.slices), _SLICES_AT_ONCE):
        z_indices = case.slices[start : start + _SLICES_AT_ONCE]
        yield prepare_images(volumes, brain, case.survey.normalizations, preparation, z_indices)


def _masks(labels: np.ndarray | None, case: PlannedCase, preparation: Preparation) -> np.ndarray:
    """Prepares the masks: (n, 1, S, S) uint8 canonical labels, all 0 for a case without a mask."""
    size = preparation.size
    masks = np.zeros((len(case.slices), 1, size, size), np.uint8)
    if labels is not None:
        table = canonical_table(case.scheme)
        for mask, z in zip(masks, case.slices, strict=True):
            inside = labels[z]
            if np.count_nonzero(inside):
                mask[0] = cv2.LUT(fit_masks(inside[None], size, preparation.fit)[0], table)
    return masks


def _read_scans(survey: Survey) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Reads the volumes in modality order and the mask in source values, all canonical (Z, Y, X).

    Raises:
        DataFaults: A file is not the one that was surveyed, by size and checksum.
    """
    case = survey.case
    scans = [*case.images.values(), *([case.mask] if case.mask else [])]
    volumes: list[np.ndarray] = []
    contents: Contents | None = None
    for number, (scan, source) in enumerate(zip(scans, survey.sources, strict=True)):
        try:
            if contents is None or contents.header.path != scan.path:  # a 4-D file is read once
                contents = None
                contents = read_contents(read_header(scan.path))
            if (contents.num_bytes, contents.checksum) != (source.num_bytes, source.checksum):
                raise _changed(case.id, scan.path)
            if number == len(case.images):
                return volumes, read_labels(contents, scan.channel)
            volumes.append(read_volume(contents, scan.channel))
        except DataFaults as error:
            raise _changed(case.id, scan.path) from error
    return volumes, None


def _changed(case: str, path: Path) -> DataFaults:
    fault = Fault(
        case=case,
        path=path,
        found="a scan that has changed since it was checked",
        expected="scans that stay as they are during a build",
        remedy="Leave the scans alone, then type the same command again.",
    )
    return DataFaults([fault], "Nothing lies under the final name; what was done is kept.")
