"""What a journal stores, as plain JSON values: surveys, and a description of the build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from brats_cache import __version__
from brats_cache.build.options import describe_options
from brats_cache.build.plan import Plan
from brats_cache.build.survey import Source, Survey
from brats_cache.discovery.cases import Case
from brats_cache.format.checksum import FORMAT_VERSION
from brats_cache.imaging.preprocess import Normalization, Preparation

__all__ = [
    "SURVEY_FORM",
    "build_differences",
    "describe_build",
    "describe_preparation",
    "differing_values",
    "survey_from_json",
    "survey_to_json",
]

SURVEY_FORM = {
    "shape": [int],
    "affine": [[float]],
    "codes": str,
    "sources": [{"name": str, "num_bytes": int, "checksum": int}],
    "normalizations": [{"center": float, "scale": float, "clip": bool}],
    "brain_pixels": [int],
    "label_values": [int],
    "label_pixels": [[int]],
}
_ENDS = ({"L", "R"}, {"A", "P"}, {"I", "S"})  # of the axes of a scan


def describe_preparation(preparation: Preparation) -> dict[str, Any]:
    """Describes everything that a survey depends on besides the scans."""
    described = asdict(preparation)
    described["modalities"] = list(described["modalities"])
    return {**described, "format_version": FORMAT_VERSION, "writer": __version__}


def describe_build(plan: Plan) -> dict[str, Any]:
    """Describes everything that the bytes of a cache depend on, in a form that can be compared."""
    return {
        "fingerprint": plan.fingerprint,
        "options": json.loads(json.dumps(describe_options(plan.options))),
        "shard": str(plan.shard),
        "data_dirs": [str(folder) for folder in plan.data_dirs],
        "cases": {
            case.id: {
                "scans": [
                    [source.name, source.num_bytes, source.checksum]
                    for source in case.survey.sources
                ],
                "split": case.split,
                "fold": case.fold,
                "label scheme": case.scheme.name,
            }
            for case in plan.cases
        },
    }


def build_differences(stored: Mapping[str, Any], plan: Plan) -> list[str]:
    """Compares the build of a journal with a plan.

    Args:
        stored: What `describe_build` returned for the earlier plan.
        plan: The plan of this build.

    Returns:
        A line for each difference; empty for the same build.
    """
    now = describe_build(plan)
    if all(stored[key] == value for key, value in now.items()):
        return []
    found = differing_values(stored["options"], now["options"])
    found += differing_values(stored, now, ("shard", "data_dirs"))
    then, today = stored["cases"], now["cases"]
    found += [f"{name}: among the scans then, not now" for name in then if name not in today]
    found += [f"{name}: among the scans now, not then" for name in today if name not in then]
    for name in (name for name in then if name in today):
        old, new = then[name], today[name]
        for before, after in zip(old["scans"], new["scans"], strict=False):
            if before[1:] != after[1:]:
                found.append(f"{name}: {after[0]} has changed")
            elif before != after:
                found.append(f"{name}: {after[0]} now, {before[0]} then")
        keys = ("split", "fold", "label scheme")
        found += [f"{name}: {line}" for line in differing_values(old, new, keys)]
    return found or ["patients, grades, ages, survival or channels"]


def differing_values(
    then: Mapping[str, Any], now: Mapping[str, Any], keys: tuple[str, ...] = ()
) -> list[str]:
    """Compares two mappings; a line for each of `keys`, by default all, whose values differ."""
    return [
        f"{key}: {then.get(key)} then, {now.get(key)} now"
        for key in keys or sorted({*then, *now})
        if then.get(key) != now.get(key)
    ]


def survey_to_json(survey: Survey) -> dict[str, Any]:
    """Returns a survey as plain JSON values, from which `survey_from_json` restores it exactly."""
    return {
        "shape": survey.shape,
        "affine": survey.affine.tolist(),
        "codes": survey.codes,
        "sources": [asdict(source) for source in survey.sources],
        "normalizations": [asdict(one) for one in survey.normalizations],
        "brain_pixels": survey.brain_pixels.tolist(),
        "label_values": survey.label_values,
        "label_pixels": survey.label_pixels.tolist(),
    }


def survey_from_json(case: Case, content: Mapping[str, Any]) -> Survey:
    """Restores a survey.

    Args:
        case: The case that was surveyed.
        content: What `survey_to_json` returned, of `SURVEY_FORM`.

    Raises:
        OverflowError, ValueError: It is no survey of this case: sizes that do not fit together, or
            numbers that no scan has.
    """
    depth, affine = len(content["brain_pixels"]), np.array(content["affine"], np.float64)
    if not _is_consistent(case, content) or affine.shape != (4, 4):
        raise ValueError("no survey of this case")
    return Survey(
        case=case,
        shape=tuple(content["shape"]),
        affine=affine,
        codes=content["codes"],
        sources=tuple(Source(**source) for source in content["sources"]),
        normalizations=tuple(Normalization(**one) for one in content["normalizations"]),
        brain_pixels=np.array(content["brain_pixels"], np.int32),
        label_values=tuple(content["label_values"]),
        label_pixels=np.array(content["label_pixels"], np.int32).reshape(-1, depth),
    )


def _is_consistent(case: Case, content: Mapping[str, Any]) -> bool:
    """Whether the sizes in a survey fit together, and its numbers can be those of scans."""
    shape, codes, values = content["shape"], set(content["codes"]), content["label_values"]
    numbers = [source[key] for source in content["sources"] for key in ("num_bytes", "checksum")]
    return (
        len(shape) == len(content["codes"]) == 3
        and min(shape) > 0
        and len(content["brain_pixels"]) in shape
        and all(len(codes & ends) == 1 for ends in _ENDS)
        and len(content["normalizations"]) == len(case.images)
        and len(content["sources"]) == len(case.images) + (case.mask is not None)
        and all(0 <= number < 1 << 64 for number in numbers)
        and values == sorted({*values})
        and len(values) == len(content["label_pixels"])
    )
