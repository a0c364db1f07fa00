"""Fills the tables and attributes of a cache from its plan.

All text has a fixed length: HDF5 strings of variable length make files with equal content differ.
docs/cache-format.md describes every field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brats_cache import __version__
from brats_cache.build.options import describe_options
from brats_cache.build.plan import Plan, PlannedCase
from brats_cache.format.checksum import FORMAT_VERSION
from brats_cache.format.schema import NUM_LABELS, SLICE_DTYPE, TEXT_FIELDS, case_dtype

__all__ = ["about", "cases_table", "plain_attributes", "slices_table"]


def cases_table(plan: Plan) -> np.ndarray:
    """Fills the table of cases.

    Args:
        plan: The plan of the cache.

    Returns:
        (num cases,) of `case_dtype`, in plan order, with `checksum` 0.
    """
    rows = [_case_record(case, plan) for case in plan.cases]
    num_modalities = len(plan.options.preparation.modalities)
    table = np.zeros(len(rows), case_dtype(_text_bytes(rows), num_modalities))
    for record, row in zip(table, rows, strict=True):
        for name, value in row.items():
            record[name] = value
    return table


def slices_table(plan: Plan) -> np.ndarray:
    """Fills the table of slices.

    Args:
        plan: The plan of the cache.

    Returns:
        (N,) of `SLICE_DTYPE`, one record for each row of the file; pixels are counted in the slices
        as scanned.
    """
    table = np.zeros(plan.num_rows, SLICE_DTYPE)
    for index, case in enumerate(plan.cases):
        part = table[case.first_row : case.first_row + len(case.slices)]
        part["case"] = index
        part["z"] = case.slices
        part["brain_pixels"] = case.survey.brain_pixels[case.slices]
        part["label_pixels"] = case.canonical_pixels[:, case.slices].T
    return table


def about(plan: Plan) -> str:
    """Describes the cache as a whole, as the JSON object of the attribute `about`."""
    shard, preparation = plan.shard, plan.options.preparation
    content = {
        "writer": f"brats-unet {__version__}",
        "fingerprint": plan.fingerprint,
        "set_fingerprint": plan.set_fingerprint,
        "shard": [shard.index, shard.count],
        "modalities": preparation.modalities,
        "size": preparation.size,
        "options": describe_options(plan.options),
        "data_dirs": [str(folder) for folder in plan.data_dirs],
        "text_bytes": _text_bytes([_case_record(case, plan) for case in plan.cases]),
    }
    return json.dumps(content, sort_keys=True)


def plain_attributes(plan: Plan) -> dict[str, np.generic | np.ndarray]:
    """Repeats the main parts of `about` as HDF5 attributes of their own, for other tools.

    This program reads `about` only; the metadata checksum covers both.

    Args:
        plan: The plan of the cache.

    Returns:
        Attribute values by name.
    """
    return {
        "format_version": np.int64(FORMAT_VERSION),
        "writer": np.bytes_(f"brats-unet {__version__}"),
        "fingerprint": np.bytes_(plan.fingerprint),
        "modalities": np.array(plan.options.preparation.modalities, "S"),
        "options": np.bytes_(json.dumps(describe_options(plan.options), sort_keys=True).encode()),
    }


def _text_bytes(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Returns the length in bytes of the longest value of each of `TEXT_FIELDS`, at least 1."""
    values = {name: [row[name] for row in rows] for name in TEXT_FIELDS}
    values["source_name"] = [name for names in values["source_name"] for name in names]
    return {name: max(1, *map(len, texts)) for name, texts in values.items()}


def _case_record(case: PlannedCase, plan: Plan) -> dict[str, Any]:
    survey = case.survey
    source_voxels = np.zeros(NUM_LABELS, np.int64)
    for value, pixels in zip(survey.label_values, survey.label_pixels, strict=True):
        source_voxels[value] = pixels.sum()
    source_voxels[0] = np.prod(survey.shape) - source_voxels.sum() if survey.case.mask else 0
    num_absent = len(survey.normalizations) + 1 - len(survey.sources)  # the mask's, where none is
    return {
        "id": survey.case.id.encode(),
        "patient": survey.case.patient.encode(),
        "split": case.split.encode(),
        "fold": case.fold,
        "grade": survey.case.grade.encode(),
        "age": np.nan if survey.case.age is None else survey.case.age,
        "survival": survey.case.survival.encode(),
        "has_mask": survey.case.mask is not None,
        "first_row": case.first_row,
        "rows": len(case.slices),
        "native_shape": survey.shape,
        "affine": survey.affine,
        "orientation": survey.codes.encode(),
        "label_scheme": case.scheme.name.encode(),
        "native_voxel_counts": source_voxels,
        "center": [normalization.center for normalization in survey.normalizations],
        "scale": [normalization.scale for normalization in survey.normalizations],
        "data_dir": plan.data_dirs.index(survey.case.data_dir),
        "source_name": [source.name.encode() for source in survey.sources] + [b""] * num_absent,
        "source_bytes": [source.num_bytes for source in survey.sources] + [0] * num_absent,
        "source_checksum": [source.checksum for source in survey.sources] + [0] * num_absent,
    }
