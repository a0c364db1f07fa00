"""Paired differences of runs, and the page that shows them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_train.evaluation.comparison import compare_results
from brats_train.evaluation.results import CaseRow, Results
from tests.train.runs import call, make_run


def results_of(dice: dict[str, float], folder: str = "run") -> Results:
    rows = [CaseRow(case=case, region="wt", scores={"dice": one}) for case, one in dice.items()]
    summary = {"regions": {"wt": {}}}
    return Results(folder=Path(folder), summary=summary, rows=rows, models=[])


def test_differences_are_paired_over_common_cases() -> None:
    """What makes a case hard for both cancels out: a constant gain has an interval of no width."""
    rng = np.random.default_rng(3)
    first = {f"case{number}": float(rng.uniform(0.2, 0.8)) for number in range(9)}
    second = {case: value + 0.05 for case, value in first.items()} | {"other": 0.1}
    (told,) = compare_results([results_of(first | {"mine": 0.9}), results_of(second)])
    assert told.num_cases == 9
    gain = told.differences[1]
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.05, 0.05, 0.05))
    assert told.differences[0].mean == 0
    assert told.means[0].high - told.means[0].low > 0.05


def test_undefined_scores_and_few_patients() -> None:
    first, second = {"a": 0.5, "b": math.nan, "c": 0.5}, {"a": 0.7, "b": 0.9, "c": 0.6}
    (told,) = compare_results([results_of(first), results_of(second)])
    assert told.num_cases == 2
    assert told.differences[1].mean == pytest.approx(0.15)
    assert math.isnan(told.differences[1].low)


def test_nothing_in_common_is_one_message() -> None:
    with pytest.raises(BratsError, match="no case in common"):
        compare_results([results_of({"a": 0.5}), results_of({"b": 0.5})])


def test_the_command_compares_scores_and_settings(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / name, cache, seed=seed) for seed, name in enumerate("ab")]
    config = json.loads((runs[1] / "config.json").read_text())
    config["recipe"]["lr"] = 0.5
    (runs[1] / "config.json").write_text(json.dumps(config))
    page = tmp_path / "page.html"
    call("compare", *runs, "--out", page)
    assert "not scored" in capsys.readouterr().err
    for run in runs:
        call("eval", "--run", run, "--device", "cpu")
    capsys.readouterr()
    call("compare", *runs, "--out", page)
    said = capsys.readouterr().out
    assert "lr: 0.0001, 0.5" in said
    means = []
    for run in runs:
        with (run / "eval" / "val" / "cases.csv").open(newline="") as file:
            means.append(np.mean([float(row["dice"]) for row in csv.DictReader(file)]))
    assert f"{means[1] - means[0]:+.3f}" in said
    text = page.read_text()
    assert f"{means[1]:.3f}" in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    call("compare", runs[0], "--out", page, code=2)
