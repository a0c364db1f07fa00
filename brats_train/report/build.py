"""Makes the figures of a run and its report page.

Cases and scores are those that `brats eval` wrote, and so are the masks and the calibration of the
probabilities, which it has stored; the model that was scored predicts what is not stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_cache.format.reader import Cache
from brats_cache.format.truth import true_labels
from brats_train.data.selection import Fold, case_splits
from brats_train.evaluation.calibration import Table
from brats_train.evaluation.results import Results
from brats_train.inference.case_models import CaseModels
from brats_train.inference.mask_files import grid_of
from brats_train.report import figures
from brats_train.report.case_entry import CaseEntry
from brats_train.report.gallery import CaseSlices, Predict, select_slices
from brats_train.report.html import data_uri
from brats_train.report.page import Picture, make_page
from brats_train.report.panels import draw_panels, draw_predictions
from brats_train.training.curves import best_epoch, draw_curves
from brats_train.training.rendering import DPI, FORMATS, render
from brats_train.training.run_dir import RunDir

__all__ = ["FIGURES", "check_unchanged", "make_report"]

FIGURES = ("curves", "panels", "tests", "scores", "sizes", "reliability")
MAX_SLICES = 16
# Four modalities of 16 slices take 0.2 MB a case; with more cases, each shows fewer slices.
MAX_CASES_WITH_ALL_SLICES = 55
MIN_SLICES = 4
NUM_TESTS = 4
_WEBP_QUALITY = 85
Progress = Callable[[int, int], None]


@dataclass(kw_only=True)
class _ScoredCases:
    """What is kept of the scored cases.

    Attributes:
        entries: All cases, for the page.
        panels: Slices of the cases of the figure `panels`, by id.
        tables: Sums of probability tables, by region.
    """

    entries: list[CaseEntry] = field(default_factory=list)
    panels: dict[str, CaseSlices] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)


def make_report(
    run: RunDir,
    results: Results | None,
    caches: Sequence[Cache],
    predict: Predict | None,
    progress: Progress,
    formats: Sequence[str] = ("png", "svg"),
    dpi: int = DPI,
) -> list[Path]:
    """Writes the figures and report.html of a run.

    No figure stays behind that is not of this report: one of an earlier report in another format is
    drawn again, and one that cannot be drawn now is removed.

    Args:
        run: The run.
        results: The evaluation to show; None shows training alone.
        caches: The caches that were scored.
        predict: Predicts the scored cases and, with a model, some test cases.
        progress: Called with (done, total) cases.
        formats: Of the files in figures/, see `FORMATS`.
        dpi: Their pixels an inch.

    Returns:
        The written files, the page first.

    Raises:
        BratsError: A scored case is not in `caches`, its truth cannot be read (see
            `brats_cache.format.truth.true_labels`), or there is nothing to draw.
    """
    config = run.read_config()
    epochs = run.read_metrics() if run.metrics.is_file() else []
    best = best_epoch(epochs, config["recipe"].get("best_by", "iou_loss"))
    drawn: dict[str, Figure] = {}
    entries: list[CaseEntry] = []
    if epochs:
        drawn["curves"] = draw_curves(epochs, best)
    if results is not None and predict is not None:
        scored, tests = _predict_cases(results, caches, predict, config["fold"], progress)
        entries = scored.entries
        drawn |= _draw_results(results, scored, tests)
    if not drawn:
        raise BratsError(f"{run.path}: nothing to show, neither metrics.csv nor an evaluation.")
    written = []
    for name in FIGURES:
        written += _save(run.figures / name, drawn.get(name), formats, dpi)
    pictures = [
        Picture(name=name, uri=_image_uri(name, drawn[name])) for name in FIGURES if name in drawn
    ]
    path = run.path.resolve()
    page = make_page(
        f"{path.parent.name}/{path.name}", config, epochs, best, results, pictures, entries
    )
    write_atomically(run.path / "report.html", page)
    return [run.path / "report.html", *written]


def check_unchanged(results: Results, caches: Sequence[Cache], models: CaseModels | None) -> None:
    """Checks that caches and checkpoints are those that were scored.

    Raises:
        BratsError: One of them is not.
    """
    summary = results.summary
    scored = {cache["fingerprint"] for cache in summary["caches"]}
    for cache in caches:
        if cache.fingerprint not in scored:
            raise BratsError(
                f"{cache.path}: not the cache that {results.folder} was scored on. Name that one "
                "with --cache, or score the run again with brats eval."
            )
    if models is None:
        return
    for model in results.models:
        loaded = models.by_fold[model.fold]
        for path, found, expected in zip(
            loaded.paths, loaded.fingerprints, model.checkpoints, strict=True
        ):
            if found != expected["fingerprint"]:
                raise BratsError(
                    f"{path}: has changed since {results.folder} was written. Score the run again "
                    "with brats eval."
                )


def _predict_cases(
    results: Results,
    caches: Sequence[Cache],
    predict: Predict,
    fold: Fold,
    progress: Progress,
) -> tuple[_ScoredCases, list[CaseSlices]]:
    """Predicts the scored cases and, with a model, a few test cases without a mask."""
    cases = _locate_cases(results, caches)
    for_panels = _choose_panels(results)
    limit = MAX_SLICES * MAX_CASES_WITH_ALL_SLICES // max(len(cases), MAX_CASES_WITH_ALL_SLICES)
    scored = _ScoredCases()
    is_model = "predictions" not in results.summary
    tests = _choose_tests(caches, fold) if is_model else []
    total = len(cases) + len(tests)
    progress(0, total)
    for number, (case, (cache, index)) in enumerate(cases.items(), start=1):
        labels = true_labels(cache, index)
        predicted = predict(cache, index, labels)
        slices = select_slices(
            cache, index, predicted, labels, results.regions, max(limit, MIN_SLICES)
        )
        for region, table in predicted.tables.items():
            scored.tables[region] = scored.tables.get(region, 0) + table
        if case in for_panels:
            scored.panels[case] = slices
        ml_per_voxel = math.prod(grid_of(cache, index).spacing_mm) / 1000
        scored.entries.append(CaseEntry.of(slices, ml_per_voxel))
        progress(number, total)
    shown_tests = []
    for number, (cache, index) in enumerate(tests, start=len(cases) + 1):
        predicted = predict(cache, index, None)
        shown_tests.append(
            select_slices(cache, index, predicted, None, results.regions, MAX_SLICES)
        )
        progress(number, total)
    return scored, shown_tests


def _locate_cases(results: Results, caches: Sequence[Cache]) -> dict[str, tuple[Cache, int]]:
    """The cache of each scored case, and its number in it, by id."""
    every = {
        name.decode(): (cache, index)
        for cache in caches
        for index, name in enumerate(cache.cases["id"].tolist())
    }
    missing = [case for case in results.cases if case not in every]
    if missing:
        raise BratsError(
            f"{results.folder}: {len(missing)} scored cases are in no cache ({missing[0]}). Name "
            "every cache that was scored with --cache."
        )
    return {case: every[case] for case in results.cases}


def _choose_tests(caches: Sequence[Cache], fold: Fold) -> list[tuple[Cache, int]]:
    """A few test cases without a mask, evenly spaced over all of them."""
    unmasked = [
        (cache, int(index))
        for cache in caches
        for index in np.flatnonzero(case_splits(cache, fold) == "test")
        if not cache.cases["has_mask"][index] and cache.cases["rows"][index]
    ]
    steps = np.linspace(0, len(unmasked) - 1, min(NUM_TESTS, len(unmasked))).round().astype(int)
    return [unmasked[step] for step in steps]


def _choose_panels(results: Results) -> dict[str, str]:
    """Ids of the best, median and worst case by Dice of the first region, with their headings."""
    region = results.regions[0]
    scores = results.values(region, "dice")
    ranked = sorted((c for c in scores if not math.isnan(scores[c])), key=lambda c: (scores[c], c))
    if not ranked:
        return {}
    wanted = {"best": -1, "median": (len(ranked) - 1) // 2, "worst": 0}
    if len(ranked) < 3:
        del wanted["median"]
    headings: dict[str, str] = {}
    for word, rank in wanted.items():
        case = ranked[rank]
        headings.setdefault(case, f"{word}, {region.upper()} Dice {scores[case]:.3f}")
    if len(ranked) == 1:
        return {ranked[0]: f"the only case, {region.upper()} Dice {scores[ranked[0]]:.3f}"}
    return headings


def _draw_results(
    results: Results, scored: _ScoredCases, tests: Sequence[CaseSlices]
) -> dict[str, Figure]:
    drawn: dict[str, Figure] = {}
    headings = _choose_panels(results)
    if headings:
        drawn["panels"] = draw_panels([(text, scored.panels[c]) for c, text in headings.items()])
    if tests:
        drawn["tests"] = draw_predictions(tests)
    drawn["scores"] = figures.draw_scores(
        {
            name: {
                region: list(results.values(region, name).values()) for region in results.regions
            }
            for name in ("dice", "hd95")
        }
    )
    drawn["sizes"] = figures.draw_sizes(_sizes(results, scored.entries))
    if scored.tables:
        drawn["reliability"] = figures.draw_reliability(scored.tables)
    return drawn


def _sizes(
    results: Results, entries: Sequence[CaseEntry]
) -> Mapping[str, tuple[list[float], list[float]]]:
    """True volumes in ml and Dice scores of the cases, by region."""
    factors = {entry.case: entry.ml_per_voxel for entry in entries}
    sizes = {}
    for region in results.regions:
        voxels, scores = results.values(region, "true_voxels"), results.values(region, "dice")
        known = [case for case, score in scores.items() if not math.isnan(score)]
        sizes[region] = (
            [voxels[case] * factors[case] for case in known],
            [scores[case] for case in known],
        )
    return sizes


def _save(stem: Path, figure: Figure | None, formats: Sequence[str], dpi: int) -> list[Path]:
    """Writes the files of a figure, or removes those of an earlier report."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in FORMATS}
    if figure is None:
        for path in paths.values():
            path.unlink(missing_ok=True)
        return []
    wanted = [kind for kind, path in paths.items() if kind in formats or path.exists()]
    for kind, content in render(figure, wanted, dpi).items():
        write_atomically(paths[kind], content)
    return [paths[kind] for kind in wanted]


def _image_uri(name: str, figure: Figure) -> str:
    """A figure as a data URI: charts as SVG, scans as WebP, a tenth of the size of PNG."""
    if name not in ("panels", "tests"):
        return data_uri(render(figure, ("svg",))["svg"], "image/svg+xml")
    png: Any = np.frombuffer(render(figure, ("png",))["png"], np.uint8)
    pixels = cv2.imdecode(png, cv2.IMREAD_COLOR)
    assert pixels is not None, "matplotlib writes whole PNG files"
    _, webp = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])
    return data_uri(webp.tobytes(), "image/webp")
