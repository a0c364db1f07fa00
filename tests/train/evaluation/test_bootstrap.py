"""Bootstrap intervals: what they hold, what they ignore, and how often they are right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_train.evaluation.bootstrap import bootstrap_interval

scores = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(values=scores, seed=st.integers(0, 2**31))
def test_an_interval_lies_within_the_values_and_knows_no_order(
    values: list[float], seed: int
) -> None:
    low, high = bootstrap_interval(values, num_resamples=200, seed=seed)
    assert min(values) - 1e-12 <= low <= high <= max(values) + 1e-12
    shuffled = np.random.default_rng(seed).permutation(values)
    assert bootstrap_interval(shuffled, num_resamples=200, seed=seed) == (low, high)


@settings(max_examples=20, deadline=None)
@given(values=scores)
def test_nan_is_left_out(values: list[float]) -> None:
    with_gaps = [math.nan, *values, math.nan]
    assert bootstrap_interval(with_gaps, num_resamples=100) == bootstrap_interval(
        values, num_resamples=100
    )


def test_the_seed_decides() -> None:
    values = np.linspace(0, 1, 20)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_a_higher_level_is_wider() -> None:
    values = np.random.default_rng(0).random(25)
    low, high = bootstrap_interval(values, level=0.95)
    lower, higher = bootstrap_interval(values, level=0.99)
    assert lower < low < values.mean() < high < higher


def test_width_is_that_of_the_normal_approximation_for_many_values() -> None:
    values = np.random.default_rng(3).normal(0.8, 0.1, 3000)
    low, high = bootstrap_interval(values, num_resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(3000), rel=0.06)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(4)
    covered = 0
    for seed in range(300):
        low, high = bootstrap_interval(generator.beta(8, 2, 40), num_resamples=400, seed=seed)
        covered += low <= 0.8 <= high
    # 285 expected; the percentile bootstrap is known to be a little narrow on 40 values.
    assert 268 <= covered <= 297


def test_few_values() -> None:
    assert bootstrap_interval([0.7]) == pytest.approx((0.7, 0.7))
    assert all(math.isnan(end) for end in bootstrap_interval([]))
    assert all(math.isnan(end) for end in bootstrap_interval([math.nan]))


@pytest.mark.parametrize(
    "arguments",
    [
        {"values": [0.1, math.inf]},
        {"values": [0.1], "level": 1.0},
        {"values": [0.1], "num_resamples": 0},
    ],
)
def test_what_has_no_interval_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"infinite|level"):
        bootstrap_interval(**arguments)  # type: ignore[arg-type]
