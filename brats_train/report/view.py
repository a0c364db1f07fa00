"""The viewer's page: a scan, its masks and NiiVue in one file.

NiiVue (niivue.com) draws the planes and the brain. Its published file is kept gzipped in the
package's `pages` folder with its licence, so neither a network nor another package is needed.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brats_cache.common.errors import BratsError, DataFaults, printable
from brats_cache.discovery.cases import Case, Scan, find_cases
from brats_cache.imaging.bounding_box import bounding_box
from brats_cache.imaging.grid import GRID_TOLERANCE_MM, Grid, largest_displacement
from brats_cache.imaging.labels import REGIONS
from brats_cache.imaging.nifti import read_contents
from brats_cache.imaging.nifti import read_labels as labels_of
from brats_cache.imaging.nifti import read_volume as volume_of
from brats_cache.imaging.nifti_header import Header, read_header
from brats_cache.imaging.nifti_writer import encode_volume
from brats_cache.imaging.preprocess import brain_of
from brats_train.inference.mask_files import encode_mask
from brats_train.report.display import (
    MODALITY_NAMES,
    choose_window,
    without_tumour,
)
from brats_train.report.html import assemble, asset, embedded_json
from brats_train.report.mask_meaning import meaning_of
from brats_train.report.palette import REGION_NAMES, TISSUES, page_colors

__all__ = ["make_view"]

_SAMPLES = 1 << 20  # voxels that percentiles are computed from


@dataclass(frozen=True, kw_only=True, eq=False)
class _Volume:
    """A canonical volume.

    Attributes:
        values: (Z, Y, X).
        header: Header of its file.
    """

    values: np.ndarray
    header: Header


def make_view(
    case_dir: Path,
    masks: Sequence[Path] = (),
    label_scheme: str = "auto",
    warn: Callable[[str], object] = lambda text: None,
) -> bytes:
    """Makes the page of a case.

    Args:
        case_dir: Holds the one case, in any naming that `brats build-cache` understands.
        masks: Further masks to show over it, on the same grid or another.
        label_scheme: What the values of masks mean, or "auto".
        warn: Takes a line where their values alone do not tell.

    Returns:
        An HTML page, one file.

    Raises:
        DataFaults: A file cannot be read.
        BratsError: The folder does not hold exactly one case, or the scheme is unknown or has not
            the values of a mask.
    """
    case = _find_case(case_dir)
    volumes = {name: _read(scan, warn) for name, scan in case.images.items()}
    grid = next(iter(volumes.values()))
    overlays = []
    if case.mask is not None:
        overlays.append(("truth", "truth", _read_mask(case.mask)))
    overlays += [(path.name, "prediction", _read_mask(Scan(path=path))) for path in masks]
    shown = []
    for name, kind, volume in overlays:
        meaning = meaning_of(np.unique(volume.values).tolist(), case, label_scheme)
        if meaning.doubt:
            warn(f"{volume.header.path}: {meaning.doubt}")
        labels = _on_grid(meaning.table[volume.values], volume.header, grid.header)
        shown.append((name, kind, meaning, labels))
    window = _window(volumes, [labels for *_, labels in shown])
    content = {
        "case": case.id,
        "volumes": _encoded(volumes, [labels for *_, labels in shown], window),
        "masks": [
            {
                "name": printable(name),
                "kind": kind,
                "names": meaning.names,
                "known": meaning.regions,
                "doubt": meaning.doubt,
                "nifti": _base64(labels, grid.header, window),
            }
            for name, kind, meaning, labels in shown
        ],
        "colors": page_colors(),
        "tissue_colors": {label: color for label, (_, color) in TISSUES.items()},
        "regions": {name: sorted(labels) for name, labels in REGIONS.items()},
        "region_names": REGION_NAMES,
        "start": _start_position(grid, [labels for *_, labels in shown]),
    }
    return assemble(
        "view.html",
        style=asset("view.css").decode(),
        scripts=[
            gzip.decompress(asset("niivue.umd.js.gz")).decode(),
            *(asset(f"{name}.js").decode() for name in ("picture", "view")),
        ],
        texts={"title": printable(case.id)},
        data=embedded_json("data", content),
    )


def _find_case(folder: Path) -> Case:
    """The case in `folder` with all the modalities it has."""
    findings = find_cases([folder], None)
    if findings.faults:
        raise DataFaults(findings.faults)
    cases = findings.cases
    if not cases:
        raise BratsError(f"{folder}: holds no scan, only a mask.")
    if len(cases) != 1:
        names = ", ".join(case.id for case in cases[:3])
        raise BratsError(
            f"{folder}: holds {len(cases)} cases ({printable(names)}, ...); expected one. Name a "
            "case folder."
        )
    return cases[0]


def _read(scan: Scan, warn: Callable[[str], object]) -> _Volume:
    """A scan; what no picture can show, as NaN, becomes 0 and is told."""
    header = read_header(scan.path)
    values = volume_of(read_contents(header), scan.channel)
    is_bad = ~np.isfinite(values)
    if is_bad.any():
        warn(f"{scan.path}: {is_bad.sum()} voxels are NaN or infinite, and shown as 0")
        values = np.where(is_bad, np.zeros((), values.dtype), values)
    return _Volume(values=values, header=header)


def _read_mask(scan: Scan) -> _Volume:
    header = read_header(scan.path)
    return _Volume(values=labels_of(read_contents(header), scan.channel), header=header)


def _window(volumes: dict[str, _Volume], masks: Sequence[np.ndarray]) -> tuple[slice, ...] | None:
    """What is shown of the scan: brain and masks with a margin; None where shapes differ."""
    shapes = {volume.values.shape for volume in volumes.values()}
    if len(shapes) > 1:
        return None
    shown = brain_of([*(volume.values for volume in volumes.values()), *masks])
    if not shown.any():
        return None
    return bounding_box(shown, margin=4)


def _encoded(
    volumes: dict[str, _Volume], masks: Sequence[np.ndarray], window: tuple[slice, ...] | None
) -> list[dict[str, Any]]:
    """The scans for the page; FLAIR first, which shows the whole tumour best."""
    encoded = []
    for name in sorted(volumes, key=lambda one: one != "flair"):
        values, header = volumes[name].values, volumes[name].header
        alike = [one.values for one in volumes.values() if one.values.shape == values.shape]
        brain = brain_of(alike)
        tumour = next((mask for mask in masks if mask.shape == brain.shape), np.zeros_like(brain))
        beside = without_tumour(brain, tumour != 0)
        low, high = choose_window(_sample(values[brain]), _sample(values[beside]))
        if low < 0:
            # In scans that were normalised before, the 0 outside the brain is not a dark value.
            values = np.where(brain, values, np.asarray(np.floor(low), values.dtype))
        encoded.append(
            {
                "name": MODALITY_NAMES[name],
                "low": low,
                "high": high,
                "nifti": _base64(values, header, window),
            }
        )
    return encoded


def _sample(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, values.size // _SAMPLES)]


def _base64(values: np.ndarray, header: Header, window: tuple[slice, ...] | None) -> str:
    """A volume, or a window of it, as NIfTI."""
    if window is None:
        return base64.b64encode(encode_volume(values, header)).decode()
    cut = values[window]
    if cut.dtype.kind not in "iu" or cut.dtype.itemsize > 4:
        cut = cut.astype(np.float32)
    affine = Grid(shape=header.shape, affine=header.affine).canonical_affine
    affine[:3, 3] = (affine @ [*(part.start for part in window), 1])[:3]
    # Canonical order is (z, y, x); NIfTI's is (x, y, z).
    grid = Grid(shape=cut.shape[::-1], affine=affine[:, [2, 1, 0, 3]])
    return base64.b64encode(encode_mask(cut.astype(cut.dtype.newbyteorder("=")), grid)).decode()


def _on_grid(labels: np.ndarray, own: Header, wanted: Header) -> np.ndarray:
    """(Z, Y, X) uint8 labels on the grid of another file, by nearest neighbour; 0 beyond them."""
    here = Grid(shape=own.shape, affine=own.affine)
    there = Grid(shape=wanted.shape, affine=wanted.affine)
    if here.canonical_shape == there.canonical_shape:
        distance = largest_displacement(
            here.canonical_shape, here.canonical_affine, there.canonical_affine
        )
        if distance <= GRID_TOLERANCE_MM:
            return labels
    step = np.linalg.inv(here.canonical_affine) @ there.canonical_affine
    depth, height, width = there.canonical_shape
    out = np.zeros((depth, height, width), np.uint8)
    plane = np.indices((height, width)).reshape(2, -1)
    for z in range(depth):
        places = step[:3, 0:1] * z + step[:3, 1:3] @ plane + step[:3, 3:4]
        index = np.rint(places).astype(int)
        size = np.array(labels.shape)[:, None]
        is_inside = ((index >= 0) & (index < size)).all(axis=0)
        out[z].ravel()[is_inside] = labels[tuple(index[:, is_inside])]
    return out


def _start_position(grid: _Volume, masks: Sequence[np.ndarray]) -> list[float]:
    """The first position of the crosshair, RAS mm.

    The middle of the first mask that is not empty, in its largest slice and within the mask; else
    that of the scan.
    """
    voxel = [size // 2 for size in grid.values.shape]
    for mask in (one for one in masks if one.any()):
        z = int(np.count_nonzero(mask, axis=(1, 2)).argmax())
        rows, columns = np.nonzero(mask[z])
        distance = np.hypot(rows - np.median(rows), columns - np.median(columns))
        nearest = distance.argmin()  # the median of two lesions lies in neither
        voxel = [z, int(rows[nearest]), int(columns[nearest])]
        break
    affine = Grid(shape=grid.header.shape, affine=grid.header.affine).canonical_affine
    return [float(value) for value in (affine @ [*voxel, 1])[:3]]
