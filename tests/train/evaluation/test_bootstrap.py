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


def test_the_cases_of_one_patient_are_drawn_together() -> None:
    """Scored five times, a patient tells no more of other patients than scored once."""
    values = np.random.default_rng(5).random(12)
    once = bootstrap_interval(values)
    patients = [f"patient {number}" for number in range(12)]
    assert bootstrap_interval(values, patients) == pytest.approx(once)
    five_times = bootstrap_interval(np.repeat(values, 5), np.repeat(patients, 5).tolist())
    assert five_times == pytest.approx(once)
    low, high = bootstrap_interval(np.repeat(values, 5))  # taken for sixty patients
    assert high - low < 0.6 * (once[1] - once[0])


@settings(max_examples=40, deadline=None)
@given(values=scores, seed=st.integers(0, 2**31))
def test_the_order_of_cases_and_the_names_of_patients_do_not_matter(
    values: list[float], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    patients = generator.integers(3, size=len(values))
    expected = bootstrap_interval(values, [f"a{number}" for number in patients], num_resamples=100)
    order = generator.permutation(len(values))
    names = [f"b{2 - number}" for number in patients[order]]
    assert bootstrap_interval(np.array(values)[order], names, num_resamples=100) == expected


def test_one_patient_has_no_spread() -> None:
    assert bootstrap_interval([0.2, 0.4], ["p", "p"]) == pytest.approx((0.3, 0.3))


def test_intervals_over_patients_cover_the_true_mean_where_those_over_cases_do_not() -> None:
    generator = np.random.default_rng(6)
    patients = [str(number) for number in range(30) for _ in range(6)]
    covered = {"patients": 0, "cases": 0}
    for seed in range(200):
        means = generator.normal(0.7, 0.1, 30)
        values = np.repeat(means, 6) + generator.normal(0, 0.03, 180)
        for name, units in (("patients", patients), ("cases", None)):
            low, high = bootstrap_interval(values, units, num_resamples=400, seed=seed)
            covered[name] += low <= 0.7 <= high
    assert covered["patients"] >= 178  # of 190 expected
    assert covered["cases"] <= 140
