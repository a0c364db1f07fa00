"""The kinds of hostile input. A kind is a module of this folder with two functions:

    make(rng) -> Files     one input, files by their path in a folder; mostly valid files, spoiled
    read(folder) -> None   everything that is done with them; `BratsError` for what is refused

To add one, write the module, name it below and see that `test_hostile.py` passes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.hostile.mutations import Files

# Inputs of a kind in a thousand: many of what is fast to read, few where one takes 0.1 s or more.
SHARES = {
    "scans": 200,  # NIfTI files, packed or not
    "foreign": 60,  # what is no NIfTI file, under its name; packed streams
    "caches": 140,  # HDF5
    "journals": 40,  # of a build that was killed
    "tables": 110,  # name_mapping.csv, survival_info.csv
    "manifests": 80,  # of --manifest
    "splits": 80,  # of --split-file
    "datasets": 80,  # dataset.json
    "folders": 40,  # names of files
    "recipes": 50,  # TOML
    "configs": 30,  # config.json of a run
    "metrics": 50,  # metrics.csv
    "evaluations": 14,  # summary.json and cases.csv
    "checkpoints": 15,  # best.pt
    "weights": 10,  # of an encoder, .pth and .safetensors
    "reports": 1,  # the page of a run
}
WITH_TORCH = ("recipes", "configs", "metrics", "evaluations", "checkpoints", "weights", "reports")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of hostile input, see above."""

    name: str
    make: Callable[[np.random.Generator], Files]
    read: Callable[[Path], None]


def load_kind(name: str) -> Kind:
    """Imports a kind. Some import torch, so each has processes of its own."""
    module = importlib.import_module(f"tests.hostile.{name}")
    return Kind(name=name, make=module.make, read=module.read)
