"""What an evaluation wrote is read back as it was."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import fields
from pathlib import Path

import pytest

from brats_cache.common.errors import BratsError
from brats_train.evaluation.case_scores import CaseScores
from brats_train.evaluation.metrics import RegionScores
from brats_train.evaluation.results import read_results
from brats_train.evaluation.summary import cases_csv

# What commands read from summary.json.
SUMMARY = {
    "split": "val",
    "num_cases": 1,
    "slice_rows": "all",
    "empty": "official",
    "regions": {"wt": {"dice": {"mean": 0.8}}},
    "caches": [{"path": "cache.h5", "fingerprint": "0"}],
    "checkpoints": [{"path": "best.pt", "fingerprint": "0"}],
    "postprocessing": {"tta": False, "rules": {"wt": {"threshold": 0.5}}},
}


def test_a_case_named_like_a_formula_is_text_and_read_back(tmp_path: Path) -> None:
    scores = RegionScores(**{field.name: -0.5 for field in fields(RegionScores)})
    names = ("=cmd()", "+x", "-1", "@y", "\x1b=2", "'-z", "plain", "a\rb")
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
    assert all(row[0][0] not in "=+-@\x1b" for row in csv.reader(io.StringIO(table, newline="")))
    (tmp_path / "cases.csv").write_text(table)
    (tmp_path / "summary.json").write_text(json.dumps({**SUMMARY, "predictions": "masks"}))
    results = read_results(tmp_path)
    assert results is not None
    assert results.cases == names
    assert all(math.isclose(dice, -0.5) for dice in results.values("wt", "dice").values())


def test_the_field_at_fault_is_named(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({**SUMMARY, "split": None}))
    (tmp_path / "cases.csv").write_text("case,region,dice\nm,wt,1\n")
    with pytest.raises(BratsError, match=r"\(summary\.json: split: input should be"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    ("summary", "table"),
    [
        ("[" * 200_000, "case,region,dice\nm,wt,1\n"),
        ('{"regions": {"wt": ' + "4" * 5000 + "}}", "case,region,dice\nm,wt,1\n"),
        ('{"regions": {"wt": {}}}', "case,region,dice\nm,wt," + "1" * 200_000 + "\n"),
        ('{"regions": {"wt": {}}}', "case,region,dice\nm,wt,\udcff\n"),
        ('{"regions": {"wt": {}}}', "case,region,dice\nm,wt,1,2\n"),
        ('{"regions": {"wt": {}}}', "case,region,dice\nm\n"),
        ("[]", "case,region,dice\nm,wt,1\n"),
        (json.dumps(SUMMARY), "case,region,dice\nm,wt,inf\n"),
        *(
            (json.dumps({**SUMMARY, **part}), "case,region,dice\nm,wt,1\n")
            for part in (
                {"regions": {"wt": {"dice": {"mean": "0.8"}}}},
                {"regions": {"wt": {"dice": {"mean": 0.8, "low": 0.7}}}},
                {"regions": {"wt": {}}},
                {"regions": {"wt": {"dice": {"mean": 0.8}}, "head": {"dice": {"mean": None}}}},
                {"regions": 5},
                {"caches": None},
                {"caches": [{"path": 5, "fingerprint": "0"}]},
                {"split": None},
                {"num_cases": "1"},
                {"num_patients": -1},
                {"patients": {"a": 1}},
                {"slice_rows": "x"},
                {"empty": "x"},
                {"slice_threshold": "x"},
                {"regions": {"wt": {"dice": {"mean": 0.8}, "hd95": "x"}}},
                {"definitions": 0.5},
                {"predictions": None},
                {"folds": [{"checkpoints": [5]}]},
                {"postprocessing": {"tta": True, "rules": {"wt": {"threshold": "high"}}}},
                {"postprocessing": {"tta": True, "rules": {"wt": {"threshold": 2}}}},
            )
        ),
    ],
)
def test_files_that_are_no_evaluation_are_one_message(
    tmp_path: Path, summary: str, table: str
) -> None:
    (tmp_path / "summary.json").write_text(summary)
    (tmp_path / "cases.csv").write_bytes(table.encode("utf-8", "surrogateescape"))
    with pytest.raises(BratsError, match="are no evaluation of this program"):
        read_results(tmp_path)
