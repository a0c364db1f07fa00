"""What an evaluation wrote is read back as it was."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import fields
from pathlib import Path

from brats_train.evaluation.case_scores import CaseScores
from brats_train.evaluation.metrics import RegionScores
from brats_train.evaluation.results import read_results
from brats_train.evaluation.summary import cases_csv


def test_a_case_named_like_a_formula_is_text_and_read_back(tmp_path: Path) -> None:
    scores = RegionScores(**{field.name: -0.5 for field in fields(RegionScores)})
    names = ("=cmd()", "+x", "-1", "@y", "\x1b=2", "'-z", "plain")
    cases = [
        CaseScores(
            case=name,
            patient=name,
            regions={"wt": scores},
            slice_ious={},
            tables={},
            uncached_slices=0,
            uncached_voxels=0,
        )
        for name in names
    ]
    table = cases_csv(cases)
    assert all(row[0][0] not in "=+-@\x1b" for row in csv.reader(table.splitlines()))
    (tmp_path / "cases.csv").write_text(table)
    (tmp_path / "summary.json").write_text(json.dumps({"regions": {"wt": {}}}))
    results = read_results(tmp_path)
    assert results is not None
    assert results.cases == names
    assert all(math.isclose(dice, -0.5) for dice in results.values("wt", "dice").values())
