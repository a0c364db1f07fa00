"""The expected Dice beside the true one: correlation of ranks, errors, intervals over patients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from brats_train.evaluation.expectation import (
    describe_expected,
    rank_correlation,
    summarise_expected,
)


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    told, true = rng.random((2, 40)).round(1)  # with ties
    expected = stats.spearmanr(told, true).statistic
    assert rank_correlation(told, true) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(rank_correlation(told, np.ones(40)))
    assert math.isnan(rank_correlation(told[:1], true[:1]))


def test_errors_and_intervals() -> None:
    true = np.linspace(0.2, 0.9, 9)
    told = true + np.where(np.arange(9) % 3, 0.05, -0.02)
    found = summarise_expected([*told, 0.5], [*true, math.nan], [f"p{n}" for n in range(10)])
    assert found["num_cases"] == 9
    assert found["mean_difference"]["value"] == pytest.approx(np.mean(told - true))
    assert found["mean_absolute_error"]["value"] == pytest.approx(np.mean(abs(told - true)))
    for score in (found["rank_correlation"], found["mean_absolute_error"]):
        assert score["low"] <= score["value"] <= score["high"]


def test_few_patients_have_no_interval_and_no_case_no_figure() -> None:
    few = summarise_expected([0.5, 0.6, 0.7], [0.4, 0.6, 0.8], ["a", "b", "b"])
    assert few["rank_correlation"]["value"] == pytest.approx(1.0)
    assert math.isnan(few["rank_correlation"]["low"])
    none = summarise_expected([], [], [])
    assert math.isnan(none["mean"])
    (_, means), (label, errors) = describe_expected([few, None])
    assert means == ["0.600", ""]
    assert label.strip() == "error", "a rank correlation of few cases says nothing"
    assert errors == ["0.067", ""]
    assert describe_expected([None]) == []
