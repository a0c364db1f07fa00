"""What a model tells of a case beside its mask: `<case>.json` of `brats predict`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brats_cache.common.files import read_json
from brats_train.inference.case_prediction import CasePrediction
from brats_train.models.checkpoint import SegmenterSpec

__all__ = ["encode_details", "label_of", "made_by"]


def label_of(prediction: CasePrediction, spec: SegmenterSpec) -> str:
    """The most probable label of a case."""
    return spec.labels[int(prediction.labels.argmax())]


def encode_details(
    case: str,
    prediction: CasePrediction,
    expected: np.ndarray,
    warnings: Sequence[str],
    spec: SegmenterSpec,
    made: str,
) -> bytes:
    """Makes the content of the file.

    Args:
        case: Id of the case.
        prediction: What the model predicts.
        expected: (K,) the expected Dice of each region.
        warnings: About the scans and the masks.
        spec: The model.
        made: Which model made it of which scans, see `output_files.description_of`.
    """
    details: dict[str, Any] = {"case": case, "made_by": made}
    if spec.labels:
        details["label"] = label_of(prediction, spec)
        details["label_probabilities"] = _rounded(spec.labels, prediction.labels)
    details["expected_dice"] = _rounded(spec.regions, expected)
    details["warnings"] = list(warnings)
    return (json.dumps(details, indent=2) + "\n").encode()


def _rounded(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(names, values, strict=True)}


def made_by(path: Path) -> str:
    """Which model made a file of which scans, "" where it is another program's."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return ""
    found = content.get("made_by") if isinstance(content, dict) else None
    return found if isinstance(found, str) else ""
