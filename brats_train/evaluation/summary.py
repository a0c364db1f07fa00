"""The summary of an evaluation: means and their intervals, for JSON and for a terminal."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from brats_cache.common.csv_names import csv_text, written_name
from brats_cache.common.errors import printable, wrapped
from brats_cache.common.text import count_of
from brats_train.evaluation.bootstrap import MIN_PATIENTS, bootstrap_interval
from brats_train.evaluation.calibration import (
    best_threshold,
    brier_score,
    calibration_error,
    dice_by_threshold,
    thresholds,
)
from brats_train.evaluation.case_scores import CaseScores
from brats_train.evaluation.expectation import describe_expected, summarise_expected
from brats_train.evaluation.metrics import EmptyRule, RegionScores
from brats_train.models.postprocessing import Postprocessing

__all__ = ["DEFINITIONS", "cases_csv", "describe", "summarise", "to_json"]

QUANTILES = (0.05, 0.25, 0.75, 0.95)
WIDTH = 80
METRICS = tuple(field.name for field in fields(RegionScores))
# What each figure is, in words short enough to stand beside it; docs/metrics.md has the rest.
DEFINITIONS: Mapping[str, str] = {
    "dice": "2 |P and T| / (|P| + |T|), voxels of the scan's own grid",
    "iou": "|P and T| / |P or T|",
    "sensitivity": "|P and T| / |T|",
    "specificity": "voxels outside both / voxels outside T, over the whole volume",
    "precision": "|P and T| / |P|",
    "hd95": "mm; larger of both directed 95 % distances by surface area, surface between voxels "
    "(Nikolov et al. 2018, as in the BraTS 2023 evaluation)",
    "nsd": "normalised surface Dice at 1 mm by surface area (Nikolov et al. 2018)",
    "volume_difference_ml": "predicted minus true volume in ml",
    "lesion_dice": "mean over lesions by the BraTS 2023 rule for adult glioma (3 dilations, "
    "50 mm3); missed and false ones count 0",
    "lesion_hd95": "mm; likewise, missed and false ones count 374",
    "slice_iou": "mean IoU over slices on the cache's grid, an empty prediction of an empty truth "
    "counting 1: val_iou of training",
    "empty official": "both empty: Dice 1, HD95 0; one empty: Dice 0, HD95 374 (BraTS)",
    "empty nan": "both empty: left out of the mean; one empty: Dice 0, HD95 374",
    "mean": "over cases; low and high are its 95 % percentile bootstrap interval, 10,000 "
    "resamples of patients (Efron 1979), none for fewer than five patients",
    "expected_dice": "of a mask without its truth, from what each network and flip makes of the "
    "case (docs/expected-dice.md); rank_correlation with the true Dice (Spearman 1904), "
    "mean_absolute_error and mean_difference, expected minus true",
    "brier_score": "mean squared difference of probability and truth, voxels of cached slices "
    "(Brier 1950)",
    "calibration_error": "expected calibration error of the foreground probability, 16 equal "
    "bins, voxels of cached slices (Guo et al. 2017)",
    "threshold_sweep": "mean Dice over cases at every k / 128, each region by itself and before "
    "components are dropped",
    "fingerprint": "xxh3_64 of a checkpoint file; a cache's own",
}
_ROWS = (
    ("Dice", "dice"),
    ("IoU", "iou"),
    ("sensitivity", "sensitivity"),
    ("precision", "precision"),
    ("HD95 mm", "hd95"),
    ("NSD 1 mm", "nsd"),
    ("lesion Dice", "lesion_dice"),
    ("lesion HD95", "lesion_hd95"),
    ("volume ml", "volume_difference_ml"),
)


def summarise(
    cases: Sequence[CaseScores],
    regions: Sequence[str],
    *,
    split: str,
    slice_rows: str,
    empty: EmptyRule,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Summarises the scores of a split: everything that summary.json holds.

    Sums are exactly rounded, so no figure depends on how cases were shared out.

    Args:
        cases: In order of their ids.
        regions: The scored regions.
        split: Its name.
        slice_rows: Rule of the rows that the slice-wise score counts.
        empty: Row of `metrics.EMPTY_MASKS`.
        facts: Joins the summary as it is.
    """
    by_region = {region: _summarise_region(region, cases, empty) for region in regions}
    slice_ious = [summary["slice_iou"] for summary in by_region.values()]
    known = [value for value in slice_ious if not math.isnan(value)]
    return {
        "split": split,
        "num_cases": len(cases),
        "num_patients": len({case.patient for case in cases}),
        "patients": {case.case: case.patient for case in cases},
        "slice_iou": _mean(known),
        "num_slices": sum(
            max((len(ious) for ious in case.slice_ious.values()), default=0) for case in cases
        ),
        "slice_rows": slice_rows,
        "regions": by_region,
        "empty": empty,
        "num_uncached_slices": sum(case.uncached_slices for case in cases),
        "num_uncached_true_voxels": sum(case.uncached_voxels for case in cases),
        **facts,
        "definitions": dict(DEFINITIONS),
    }


def cases_csv(cases: Sequence[CaseScores]) -> str:
    """Writes one row per case and region under a heading.

    A figure that is not defined is `nan`, one that was not computed is empty.
    """
    rows = [["case", "region", *METRICS, "expected_dice"]]
    for case in cases:
        for region, scores in case.regions.items():
            cells = [_cell(getattr(scores, name)) for name in METRICS]
            expected = _cell(case.expected_dice.get(region))
            rows.append([written_name(case.case), region, *cells, expected])
    return csv_text(rows)


def to_json(summary: Mapping[str, Any]) -> str:
    """Writes strict JSON, indented; NaN is null, and lists of numbers stand on one line."""
    text = json.dumps(_strict(summary), indent=2, allow_nan=False)
    return re.sub(r"\[\s[^][{}\"]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def describe(cases: Sequence[CaseScores], summary: Mapping[str, Any], num_worst: int = 3) -> str:
    """Describes means with their intervals and the worst cases, for a terminal of 80 columns."""
    regions = summary["regions"]
    if "predictions" in summary:
        source = f"masks in {summary['predictions']}"
    elif "folds" in summary:
        source = f"cross-validation of {len(summary['folds'])} folds"
    else:
        source = Postprocessing.unpack(summary["postprocessing"]).describe(list(regions))
    is_known = summary["num_patients"] >= MIN_PATIENTS
    mean = "Mean [95 % interval]" if is_known else "Mean"
    why = "" if is_known else f"; no intervals: fewer than {MIN_PATIENTS} patients"
    lines = [
        f"{count_of(summary['num_cases'], 'case')} of split {summary['split']}; {source}",
        f"{mean} over cases, on the scan's own grid{why}",
        "",
        (f"{'':<14}" + "".join(f"{region.upper():<22}" for region in regions)).rstrip(),
    ]
    for label, metric in _ROWS:
        cells = "".join(f"{_interval(scores[metric]):<22}" for scores in regions.values())
        lines.append(f"{label:<14}{cells}".rstrip())
    cells = "".join(f"{_figure(scores['slice_iou']):<22}" for scores in regions.values())
    lines.append(f"{'slice IoU':<14}{cells}".rstrip())
    for label, texts in describe_expected([one.get("expected_dice") for one in regions.values()]):
        lines.append(f"{label:<14}{''.join(f'{text:<22}' for text in texts)}".rstrip())
    lines.append("")
    for region, scores in regions.items():
        lines += _worst(cases, region, num_worst)
        if num_empty := scores["num_empty_truth"]:
            lines.append(
                f"no true {region.upper()} in {count_of(num_empty, 'case')}, rightly left empty in "
                f"{scores['num_both_empty']} (--empty {summary['empty']})"
            )
    if summary["num_uncached_true_voxels"]:
        lines.append(
            f"Note: {summary['num_uncached_true_voxels']} true voxels lie in slices that are not "
            "in the cache; no score sees them."
        )
    return "\n".join(wrapped(line, WIDTH) if len(line) > WIDTH else line for line in lines)


def _summarise_region(region: str, cases: Sequence[CaseScores], empty: EmptyRule) -> dict[str, Any]:
    """One region's part: counts of empty masks, each metric, and what probabilities are worth."""
    known = [case for case in cases if region in case.regions]
    scores = [case.regions[region] for case in known]
    summary: dict[str, Any] = {
        "num_cases": len(known),
        "slice_iou": _mean(value for case in known for value in case.slice_ious[region]),
        "num_empty_truth": sum(one.true_voxels == 0 for one in scores),
        "num_empty_prediction": sum(one.predicted_voxels == 0 for one in scores),
        "num_both_empty": sum(one.true_voxels == one.predicted_voxels == 0 for one in scores),
    }
    patients = [case.patient for case in known]
    for name in METRICS:
        summary[name] = _summarise_metric([getattr(one, name) for one in scores], patients)
    if known and all(region in case.expected_dice for case in known):
        summary["expected_dice"] = summarise_expected(
            [case.expected_dice[region] for case in known], [one.dice for one in scores], patients
        )
    tables = {case.case: case.tables[region] for case in known if region in case.tables}
    if tables:
        total = np.sum(list(tables.values()), axis=0)
        curves = {case: dice_by_threshold(table, empty) for case, table in tables.items()}
        summary["calibration_error"] = calibration_error(total)
        summary["brier_score"] = brier_score(total)
        summary["threshold_sweep"] = _sweep(curves)
    return summary


def _summarise_metric(
    values: Sequence[float | int | None], patients: Sequence[str]
) -> dict[str, Any]:
    """Mean with its 95 % interval, median and quantiles of what is defined.

    Fewer than `MIN_PATIENTS` patients give no interval.
    """
    scored = [
        (float(value), patient)
        for value, patient in zip(values, patients, strict=True)
        if value is not None and not math.isnan(value)
    ]
    if not scored:
        return {"mean": None, "num_cases": 0}
    known, their_patients = [value for value, _ in scored], [patient for _, patient in scored]
    low, high = math.nan, math.nan
    if len(set(their_patients)) >= MIN_PATIENTS:
        low, high = bootstrap_interval(known, their_patients)
    return {
        "mean": _mean(known),
        "low": low,
        "high": high,
        "median": float(np.median(known)),
        "quantiles": {str(q): float(np.quantile(known, q)) for q in QUANTILES},
        "num_cases": len(known),
    }


def _sweep(curves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    columns = np.array(list(curves.values())).T
    means = [_mean(value for value in column if not math.isnan(value)) for column in columns]
    if all(math.isnan(mean) for mean in means):
        return {"best_threshold": None, "best_mean_dice": None}
    best, dice = best_threshold(curves)
    return {
        "best_threshold": best,
        "best_mean_dice": dice,
        "thresholds": [float(level) for level in thresholds(len(means) + 1)],
        "mean_dice": [round(mean, 6) for mean in means],
    }


def _worst(cases: Sequence[CaseScores], region: str, num_worst: int) -> list[str]:
    known = [
        case
        for case in cases
        if region in case.regions and not math.isnan(case.regions[region].dice)
    ]
    worst = sorted(known, key=lambda case: (case.regions[region].dice, case.case))[:num_worst]
    return [
        f"{'lowest ' + region.upper() if not number else '':<14}"
        f"{case.regions[region].dice:.3f}  HD95 {case.regions[region].hd95:6.1f}  "
        f"{printable(case.case)}"
        for number, case in enumerate(worst)
    ]


def _interval(score: Mapping[str, float]) -> str:
    if score["mean"] is None:
        return "undefined"
    values = [score[name] for name in ("mean", "low", "high")]
    largest = max(map(abs, values))
    digits = 3 if largest <= 1 else 1 if largest < 1000 else 0  # a column holds 21 characters
    mean, low, high = (f"{value:.{digits}f}" for value in values)
    return mean if math.isnan(score["low"]) else f"{mean} [{low}, {high}]"


def _figure(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _mean(values: Iterable[float]) -> float:
    """Exactly rounded, so independent of order; NaN without a value."""
    known = list(values)
    return math.fsum(known) / len(known) if known else math.nan


def _cell(value: float | int | None) -> str:
    return "" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
