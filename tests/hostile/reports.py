"""The page of a run that was not scored: config.json and metrics.csv, drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from brats_train.report.build import make_report
from brats_train.training.run_dir import RunDir
from tests.hostile import metrics
from tests.hostile.configs import CONFIG
from tests.hostile.mutations import Files


def make(rng: np.random.Generator) -> Files:
    """A run of four epochs; the folder and the page are there already, to be replaced."""
    config = {"config.json": json.dumps(CONFIG).encode()}
    return {**metrics.make(rng), **config, "figures/curves.png": b"", "report.html": b""}


def read(folder: Path) -> None:
    """Draws the figure and writes the page."""
    make_report(RunDir.existing(folder), None, [], None, lambda done, total: None)
