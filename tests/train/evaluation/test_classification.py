"""Scores of classes: those of MONAI, of counting by hand, and what is not defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brats_train.evaluation.classification import (
    ClassifiedCase,
    area_under_curve,
    summarise_classes,
)
from brats_train.inference.pooling import pool_slices


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
def test_auc_is_monais(pairs: list[tuple[bool, int]]) -> None:
    from monai.metrics import compute_roc_auc  # takes seconds to load

    truth, scores = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], float)
    area = area_under_curve(truth, scores)
    if truth.all() or not truth.any():
        assert math.isnan(area)
    else:
        expected = compute_roc_auc(torch.tensor(scores), torch.tensor(truth.astype(float)))
        assert area == pytest.approx(expected)


def cases_of(*rows: tuple[str, float]) -> list[ClassifiedCase]:
    """Cases of one patient each: the true class, and the probability of class b."""
    return [
        ClassifiedCase(case=f"c{i}", patient=f"p{i}", label=label, probabilities=(1 - p, p))
        for i, (label, p) in enumerate(rows)
    ]


def test_figures_counted_by_hand() -> None:
    cases = cases_of(("a", 0.1), ("a", 0.6), ("a", 0.2), ("b", 0.9), ("b", 0.4), ("", 0.5))
    told = summarise_classes(cases, ("a", "b"))
    assert (told["num_cases"], told["num_unlabelled"]) == (5, 1)
    assert told["confusion"] == [[2, 1], [1, 1]]
    assert told["accuracy"]["value"] == pytest.approx(3 / 5)
    assert told["balanced_accuracy"]["value"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert told["auc"]["value"] == pytest.approx(5 / 6)
    assert told["sensitivity"] == pytest.approx({"a": 2 / 3, "b": 1 / 2})
    assert told["specificity"] == pytest.approx({"a": 1 / 2, "b": 2 / 3})
    errors = [0.1, 0.6, 0.2, 0.1, 0.6]
    assert told["brier_score"] == pytest.approx(np.mean([2 * e * e for e in errors]))
    assert told["accuracy"]["low"] <= 3 / 5 <= told["accuracy"]["high"]


def test_intervals_are_over_patients_and_not_given_for_few() -> None:
    few = cases_of(("a", 0.1), ("b", 0.9), ("a", 0.3), ("b", 0.7))
    assert math.isnan(summarise_classes(few, ("a", "b"))["auc"]["low"])
    one_patient = [
        ClassifiedCase(case=f"c{i}", patient="p", label="a", probabilities=(0.9, 0.1))
        for i in range(9)
    ]
    told = summarise_classes(one_patient, ("a", "b"))
    assert told["accuracy"]["value"] == 1
    assert math.isnan(told["accuracy"]["low"])
    assert math.isnan(told["auc"]["value"])


def test_a_calibrated_classifier_has_no_calibration_error() -> None:
    right = cases_of(*[("b", 0.8)] * 8, *[("a", 0.8)] * 2)
    assert summarise_classes(right, ("a", "b"))["calibration_error"] == pytest.approx(0)
    wrong = cases_of(*[("a", 0.9)] * 10)
    assert summarise_classes(wrong, ("a", "b"))["calibration_error"] == pytest.approx(0.9)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(2, 4), st.integers(0, 10_000))
def test_pooled_slices_are_probabilities_whatever_their_order(
    num: int, num_classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(num_classes), num)
    weights = rng.integers(0, 100, num).astype(float)
    pooled = pool_slices(probabilities, weights)
    assert pooled.sum() == pytest.approx(1)
    assert (pooled >= 0).all()
    order = rng.permutation(num)
    np.testing.assert_allclose(pool_slices(probabilities[order], weights[order]), pooled)
    # Splitting a slice into two halves changes nothing, as shares of a tumour should have it.
    halves = pool_slices(np.repeat(probabilities, 2, axis=0), np.repeat(weights / 2, 2))
    np.testing.assert_allclose(halves, pooled)


def test_few_sure_slices_outweigh_many_unsure_ones() -> None:
    sure, unsure = [0.001, 0.999], [0.55, 0.45]
    pooled = pool_slices(np.array([sure] * 3 + [unsure] * 7), np.ones(10))
    assert pooled[1] > 0.5 > np.mean([[*unsure]] * 7, axis=0)[1]
