"""dataset.json of the Decathlon and of nnU-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brats_cache.common.errors import DataFaults
from brats_cache.discovery.cases import find_cases
from tests.hostile.mutations import Files, choose, spoil_json

_LABELS = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
_CHANNELS = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
_DOCUMENTS: tuple[dict[str, Any], ...] = (
    {"name": "BRATS", "modality": _CHANNELS, "labels": _LABELS, "numTraining": 1},
    {
        "channel_names": _CHANNELS,
        "labels": {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "ET": 3},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    },
    {"modality": {"0": "T2"}, "labels": {"background": 0, "tumor": 1}, "numTest": 3},
)
_FILES = (
    ("imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz", "imagesTs/BRATS_485.nii.gz"),
    (*(f"imagesTr/a_000{number}.nii.gz" for number in range(4)), "labelsTr/a.nii.gz"),
)


def make(rng: np.random.Generator) -> Files:
    """A data set with empty images, which nobody opens here."""
    document = spoil_json(choose(rng, _DOCUMENTS), rng)
    return {"dataset.json": document, **dict.fromkeys(choose(rng, _FILES), b"")}


def read(folder: Path) -> None:
    """Finds the cases of the data set."""
    found = find_cases([folder], None)
    if found.faults:
        raise DataFaults(found.faults)
