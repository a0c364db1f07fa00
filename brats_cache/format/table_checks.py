"""Checks of the tables of a cache file: every number that is later used as an index, a size or a
name must be possible, whoever made the file."""

from __future__ import annotations

import numpy as np

from brats_cache.common.names import check_file_name
from brats_cache.format.schema import SPLITS
from brats_cache.imaging.labels import SCHEMES
from brats_cache.imaging.orientation import Orientation

__all__ = ["MAX_AXIS", "check_tables"]

MAX_AXIS = 1 << 16
_MAX_MM = 1e6


def check_tables(cases: np.ndarray, slices: np.ndarray, num_data_dirs: int) -> None:
    """Checks both tables of a cache.

    Args:
        cases: Records of `schema.case_dtype`.
        slices: Records of `schema.SLICE_DTYPE`.
        num_data_dirs: Number of DATA arguments that the file names.

    Raises:
        ValueError: A value is not possible; the message names its field.
    """
    rows, depth = cases["rows"], cases["native_shape"].max(axis=1, initial=0)
    ends = np.cumsum(rows.astype(object)) if len(rows) else np.zeros(0, object)
    numbers = np.repeat(np.arange(len(cases)), rows) if _is_sum(ends, rows, len(slices)) else None
    sound = {
        "rows": numbers is not None and np.array_equal(cases["first_row"], ends - rows),
        "case": numbers is not None and np.array_equal(slices["case"], numbers),
        "native_shape": np.all((cases["native_shape"] > 0) & (cases["native_shape"] < MAX_AXIS)),
        "data_dir": np.all((cases["data_dir"] >= 0) & (cases["data_dir"] < num_data_dirs)),
        "split": set(cases["split"].tolist()) <= {name.encode() for name in SPLITS},
        "label_scheme": set(cases["label_scheme"].tolist()) <= {n.encode() for n in SCHEMES},
        "has_mask": np.all(cases["has_mask"] <= 1),
        "counts": np.all(cases["native_voxel_counts"] >= 0) and np.all(slices["label_pixels"] >= 0),
        "affine": bool((np.abs(cases["affine"]) < _MAX_MM).all()),  # NaN is not less either
        "id": len(set(cases["id"].tolist())) == len(cases),
    }
    if sound["rows"] and sound["case"]:
        sound["z"] = np.all((slices["z"] >= 0) & (slices["z"] < depth[slices["case"]]))
    if wrong := [name for name, is_sound in sound.items() if not is_sound]:
        raise ValueError(f"impossible values in {', '.join(wrong)} of its tables")
    for name in ("id", "patient", "survival", "grade", "source_name"):
        for value in np.unique(cases[name]):
            value.decode()
    for value in cases["id"].tolist():
        _check_id(value.decode())
    for affine in np.unique(cases["affine"].reshape(-1, 16), axis=0).reshape(-1, 4, 4):
        if not abs(np.linalg.det(affine[:3, :3])) > 1e-9 or not _has_axes(affine):
            raise ValueError("an affine that is no grid in space")


def _check_id(case_id: str) -> None:
    """Refuses an id that cannot name the files of its case."""
    try:
        check_file_name(case_id)
    except ValueError as error:
        raise ValueError(f"the case id {case_id!r}: {error}") from None


def _has_axes(affine: np.ndarray) -> bool:
    return sorted(Orientation.of(affine).permutation) == [0, 1, 2]


def _is_sum(ends: np.ndarray, rows: np.ndarray, num_rows: int) -> bool:
    return bool(np.all(rows >= 0)) and (ends[-1] if len(ends) else 0) == num_rows
