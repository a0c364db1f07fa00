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
from brats_train.report.compare import ComparedRun, as_text, make_page
from tests.browser import check_looks, open_browser
from tests.train.runs import call, make_run

NAMES = ("a", r"_$b^$ \frac <b>& " + "with_a_long_name_" * 4, "c", "d", "e")


def results_of(
    dice: dict[str, float], folder: str = "run", patients: dict[str, str] | None = None
) -> Results:
    rows = [CaseRow(case=case, region="wt", scores={"dice": one}) for case, one in dice.items()]
    summary = {"regions": {"wt": {}}} | ({"patients": patients} if patients else {})
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


def test_cases_of_one_patient_are_drawn_together() -> None:
    """The patient is the one of the cache, which a table of patients may name."""
    dice = {name: 0.5 + 0.1 * number for number, name in enumerate("abcdefghijkl")}
    patients = {name: f"person {number // 2}" for number, name in enumerate(dice)}
    (alone,) = compare_results([results_of(dice)])
    (together,) = compare_results([results_of(dice, patients=patients)])
    width = [one.means[0].high - one.means[0].low for one in (alone, together)]
    assert width[1] > 1.2 * width[0]


def test_no_difference_has_no_sign_of_its_own() -> None:
    runs = [ComparedRun(name=name, config={}, epochs=[]) for name in "ab"]
    told = compare_results([results_of({"a": 0.5}), results_of({"a": 0.5 - 1e-6})])
    assert as_text(runs, told).splitlines()[-1].split() == ["b", "0.500", "+0.000"]


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


def test_the_page_fits_phone_and_desk_whatever_runs_are_called(tmp_path: Path) -> None:
    regions = ("wt", "tc", "et")
    epochs = [{"epoch": epoch, "val_iou": epoch / 40} for epoch in range(1, 31)]
    runs = [ComparedRun(name=name, config={}, epochs=epochs) for name in NAMES]
    summary = {"regions": {region: {} for region in regions}}
    results = [
        Results(
            folder=tmp_path,
            summary=summary,
            rows=[
                CaseRow(case=f"case{n}", region=region, scores={"dice": n / 9, "hd95": 374 - k})
                for n in range(6)
                for region in regions
            ],
            models=[],
        )
        for k in range(len(runs))
    ]
    settings = [("caches", [["0123456789abcdef" * 3]] * 4 + [None]), ("lr", [1, 2, 3, 4, 5])]
    path = tmp_path / "page.html"
    path.write_bytes(make_page(runs, settings, compare_results(results), "Runs."))
    with open_browser() as page:
        for width, dark in ((1400, True), (390, False), (390, True)):
            check_looks(page, path.as_uri(), width, dark=dark)
        names = page.run(
            "[...document.querySelectorAll('th[scope=row]')].map((one) => one.innerText)"
        )
        assert set(names) == set(NAMES)
        legend = page.run("atob(document.images[0].currentSrc.split(',')[1])")
        assert "_$b^$" in legend
        rows = page.run("[...document.querySelectorAll('.groups tr')].map((one) => one.innerText)")
        assert any("HD95 mm, whole tumour (WT), 6 cases" in row for row in rows)
        assert any("−4.0" in row for row in rows), "a minus, and the difference from the first"
        assert page.problems == []
        assert page.requests == [path.as_uri()]


def test_the_page_replaces_an_earlier_one_and_no_other_file(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cache named by mistake would be hours of work."""
    runs = [make_run(tmp_path / name, cache, seed=seed) for seed, name in enumerate("ab")]
    page = tmp_path / "page.html"
    for _ in range(2):
        call("compare", *runs, "--out", page)
    own = tmp_path / "brats.h5"
    own.write_bytes(b"a cache")
    capsys.readouterr()
    call("compare", *runs, "--out", own, code=1)
    assert "did not make it" in capsys.readouterr().err
    assert own.read_bytes() == b"a cache"
