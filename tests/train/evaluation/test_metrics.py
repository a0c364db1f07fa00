"""Region scores against SimpleITK, the rule for empty masks, and real tumours."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from brats_train.evaluation.metrics import EMPTY_MASKS, RegionScores, score_region

Mask = NDArray[np.bool_]

REAL_DATA = Path(os.environ.get("BRATS_REAL_DATA", Path(__file__).parents[4] / "shared" / "data"))
EMPTY, FULL = np.zeros((6, 7, 8), bool), np.ones((6, 7, 8), bool)
TUMOUR = EMPTY.copy()
TUMOUR[1:5, 1:6, 2:7] = True
HIGHER_IS_BETTER = ("dice", "iou", "sensitivity", "specificity", "precision", "nsd", "lesion_dice")
LOWER_IS_BETTER = ("hd95", "lesion_hd95")

mask_pairs = st.tuples(*[st.integers(1, 6)] * 3).flatmap(
    lambda shape: st.tuples(*[arrays(bool, shape)] * 2)
)


def test_every_metric_has_its_row_in_every_table() -> None:
    columns = [field.name for field in dataclasses.fields(RegionScores)]
    metrics = [name for name in columns if not name.endswith(("voxels", "lesions"))]
    for table in EMPTY_MASKS.values():
        assert sorted(table) == sorted(metrics)


@settings(max_examples=80, deadline=None)
@given(masks=mask_pairs)
def test_overlap_equals_simpleitk(masks: tuple[Mask, Mask]) -> None:
    sitk = pytest.importorskip("SimpleITK")
    prediction, truth = masks
    measures = sitk.LabelOverlapMeasuresImageFilter()
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (truth, prediction)]
    found = score_region(prediction, truth, (1, 1, 1), lesionwise=False)
    assert found.true_voxels == truth.sum()
    assert found.predicted_voxels == prediction.sum()
    assert found.overlap_voxels == (truth & prediction).sum()
    if prediction.any() or truth.any():
        measures.Execute(*images)
        assert found.dice == pytest.approx(measures.GetDiceCoefficient())
        assert found.iou == pytest.approx(measures.GetJaccardCoefficient())
    if prediction.any() and truth.any():
        true, predicted = truth.sum(), prediction.sum()
        overlap = measures.GetJaccardCoefficient() * (truth | prediction).sum()
        assert found.sensitivity == pytest.approx(overlap / true)
        assert found.precision == pytest.approx(overlap / predicted)
    if not truth.all():
        assert found.specificity == pytest.approx((~prediction & ~truth).sum() / (~truth).sum())


@settings(max_examples=80, deadline=None)
@given(masks=mask_pairs, rule=st.sampled_from(["official", "nan"]))
def test_scores_stay_in_range_and_iou_follows_from_dice(
    masks: tuple[Mask, Mask], rule: str
) -> None:
    found = score_region(*masks, (1, 1, 1), empty=rule)  # type: ignore[arg-type]
    for name in HIGHER_IS_BETTER:
        value = getattr(found, name)
        assert math.isnan(value) or 0 <= value <= 1
        assert not (rule == "official" and math.isnan(value))
    for name in LOWER_IS_BETTER:
        assert math.isnan(getattr(found, name)) or 0 <= getattr(found, name) <= 374
    assert found.iou == pytest.approx(found.dice / (2 - found.dice), nan_ok=True)


@pytest.mark.parametrize("rule", ["official", "nan"])
def test_a_miss_never_improves_a_mean(rule: str) -> None:
    poor = np.zeros_like(TUMOUR)
    poor[4, 5, 6:] = True
    missed = score_region(EMPTY, TUMOUR, (1, 1, 1), empty=rule)  # type: ignore[arg-type]
    found = score_region(poor, TUMOUR, (1, 1, 1), empty=rule)  # type: ignore[arg-type]
    # Specificity alone rewards silence, by its definition.
    for name in set(HIGHER_IS_BETTER) - {"specificity"}:
        assert getattr(missed, name) == 0 <= getattr(found, name)
    for name in LOWER_IS_BETTER:
        assert getattr(missed, name) == 374 > getattr(found, name)


@pytest.mark.parametrize("rule", ["official", "nan"])
def test_a_false_alarm_never_improves_a_mean(rule: str) -> None:
    quiet = score_region(EMPTY, EMPTY, (1, 1, 1), empty=rule)  # type: ignore[arg-type]
    alarm = score_region(TUMOUR, EMPTY, (1, 1, 1), empty=rule)  # type: ignore[arg-type]
    for name in HIGHER_IS_BETTER:
        before, after = getattr(quiet, name), getattr(alarm, name)
        # Without a true voxel there is nothing to be sensitive to: NaN before, NaN after.
        assert after == 0 or after < before or (math.isnan(before) and math.isnan(after))
    for name in LOWER_IS_BETTER:
        assert getattr(alarm, name) == 374


def test_official_rule_for_two_empty_masks() -> None:
    found = score_region(EMPTY, EMPTY, (1, 1, 1))
    assert all(getattr(found, name) == 1 for name in HIGHER_IS_BETTER)
    assert all(getattr(found, name) == 0 for name in LOWER_IS_BETTER)
    assert found.volume_difference_ml == 0


def test_nan_rule_says_nothing_about_two_empty_masks() -> None:
    found = score_region(EMPTY, EMPTY, (1, 1, 1), empty="nan")
    for name in {*HIGHER_IS_BETTER, *LOWER_IS_BETTER} - {"specificity"}:
        assert math.isnan(getattr(found, name))
    assert found.specificity == 1


def test_a_truth_without_background_has_no_specificity() -> None:
    assert score_region(TUMOUR, FULL, (1, 1, 1)).specificity == 1
    assert math.isnan(score_region(TUMOUR, FULL, (1, 1, 1), empty="nan").specificity)


def test_lesions_too_small_to_count_leave_nothing_to_score() -> None:
    speck = EMPTY.copy()
    speck[2, 2, 2] = True
    official = score_region(EMPTY, speck, (1, 1, 1))
    assert (official.dice, official.lesion_dice, official.lesion_hd95) == (0, 1, 0)
    unsaid = score_region(EMPTY, speck, (1, 1, 1), empty="nan")
    assert unsaid.dice == 0
    assert math.isnan(unsaid.lesion_dice or 0)
    assert math.isnan(unsaid.lesion_hd95 or 0)


def test_a_missed_lesion_and_a_false_one_are_two_that_count() -> None:
    truth, prediction = np.zeros((2, 20, 20, 20), bool)
    truth[1:6, 1:6, 1:6] = prediction[12:17, 12:17, 12:17] = True
    found = score_region(prediction, truth, (1, 1, 1))
    assert (found.true_lesions, found.missed_lesions, found.false_lesions) == (1, 1, 1)
    assert found.lesion_dice == 0
    assert found.lesion_hd95 == 374


def test_volume_difference_is_signed_and_in_millilitres() -> None:
    found = score_region(TUMOUR, EMPTY, (2, 1, 1.5))
    assert found.volume_difference_ml == pytest.approx(0.3)  # 100 voxels of 3 mm3
    assert score_region(EMPTY, TUMOUR, (2, 1, 1.5)).volume_difference_ml == pytest.approx(-0.3)


def test_without_lesions_the_rest_is_the_same() -> None:
    prediction = np.roll(TUMOUR, 1, 0)
    whole, part = (score_region(prediction, TUMOUR, (1, 1, 1), lesionwise=x) for x in (True, False))
    for field in dataclasses.fields(RegionScores):
        if "lesion" in field.name:
            assert getattr(part, field.name) is None
            assert getattr(whole, field.name) is not None
        else:
            assert getattr(part, field.name) == getattr(whole, field.name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction": TUMOUR.astype(np.uint8)}, "^prediction is uint8"),
        ({"truth": TUMOUR[0]}, r"^truth is bool of shape \(7, 8\)"),
        ({"truth": TUMOUR[1:]}, r"\(5, 7, 8\)"),
        ({"spacing_mm": (1, 0, 1)}, "spacing"),
        ({"spacing_mm": (1, 1)}, "spacing"),
        ({"spacing_mm": (1, math.inf, 1)}, "spacing"),
        ({"empty": "zero"}, "'zero', not one of official, nan"),
    ],
)
def test_what_cannot_be_scored_is_refused(change: dict[str, object], message: str) -> None:
    arguments = {"prediction": TUMOUR, "truth": TUMOUR, "spacing_mm": (1, 1, 1)} | change
    with pytest.raises(ValueError, match=message):
        score_region(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "case", ["brats2021/BraTS2021_00006", "brats2015/brats_2013_pat0003_1", "lgg/TCGA_HT_7874"]
)
def test_real_tumours_eroded_and_moved(case: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    paths = sorted(REAL_DATA.glob(f"{case}*/*seg.nii.gz"))
    if not paths:
        pytest.skip(f"no {case} under {REAL_DATA} (BRATS_REAL_DATA)")
    image = nibabel.load(paths[0])
    truth = np.ascontiguousarray(np.asarray(image.dataobj).T > 0)
    x, y, z = (float(size) for size in image.header.get_zooms()[:3])
    spacing = (z, y, x)

    same = score_region(truth, truth, spacing)
    assert (same.dice, same.hd95, same.nsd, same.lesion_dice, same.lesion_hd95) == (1, 0, 1, 1, 0)

    moved = score_region(np.roll(truth, 3, axis=2), truth, spacing, lesionwise=False)
    # No surface element is further from the other surface than the mask was moved.
    assert 0 < moved.hd95 <= 3 * x + 1e-6
    assert moved.volume_difference_ml == 0
    assert moved.sensitivity == pytest.approx(moved.precision)

    eroded = score_region(ndimage.binary_erosion(truth), truth, spacing)
    assert eroded.precision == eroded.specificity == 1
    assert eroded.volume_difference_ml == pytest.approx(
        (eroded.predicted_voxels - eroded.true_voxels) * z * y * x / 1000
    )
    assert eroded.lesion_dice is not None
    assert 0 < eroded.lesion_dice <= 1
