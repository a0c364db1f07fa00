"""summary.json and cases.csv of an evaluation."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from brats_train.evaluation.results import read_results
from brats_train.report.build import check_unchanged
from brats_train.report.figures import draw_scores
from brats_train.report.page import make_page
from tests.hostile.configs import CONFIG
from tests.hostile.mutations import Files, spoil_json, spoil_table

_RULE = {"threshold": 0.5, "min_component_share": 0.3, "min_component_voxels": 0, "min_voxels": 0}
_MEAN = {"mean": 0.8, "low": 0.7, "high": 0.9, "median": 0.8, "std": 0.1}
SUMMARY: dict[str, Any] = {
    "split": "val",
    "num_cases": 2,
    "num_patients": 2,
    "slice_iou": 0.7,
    "num_slices": 10,
    "slice_rows": "all",
    "regions": {name: {"dice": _MEAN, "hd95": _MEAN} for name in ("wt", "tc", "et")},
    "empty": "official",
    "caches": [{"path": "../inner/cache.h5", "fingerprint": "0" * 32}],
    "checkpoints": [{"path": "../inner/best.pt", "fingerprint": "0" * 16}],
    "postprocessing": {"tta": True, "rules": dict.fromkeys(("wt", "tc", "et"), _RULE)},
    "definitions": {"dice": "2 |P and T| / (|P| + |T|)"},
}
_SCORES = ("dice", "iou", "hd95", "true_voxels", "predicted_voxels")
ROWS = [
    ["case", "region", *_SCORES],
    *(
        [case, region, "0.81", "0.68", "4.2" if case == "a" else "", "120", "118"]
        for case in ("a", "b")
        for region in ("wt", "tc", "et")
    ),
]


def make(rng: np.random.Generator) -> Files:
    """An evaluation with one of its files spoiled, or both."""
    way, summary = rng.random(), json.dumps(SUMMARY).encode()
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows(ROWS)
    return {
        "summary.json": spoil_json(SUMMARY, rng) if way < 0.6 else summary,
        "cases.csv": table.getvalue().encode() if way < 0.5 else spoil_table(ROWS, rng),
    }


def read(folder: Path) -> None:
    """Reads the evaluation and shows it: the text of the page, the figure of the scores."""
    results = read_results(folder)
    assert results is not None
    assert results.cases
    check_unchanged(results, [], None)
    assert make_page("a run", CONFIG, [], None, results, [], [], {})
    draw_scores(
        {
            name: {r: list(results.values(r, name).values()) for r in results.regions}
            for name in ("dice", "hd95")
        }
    )
