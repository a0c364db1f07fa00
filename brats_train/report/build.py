"""Makes the figures of a run and its report page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_cache.format.reader import Cache
from brats_train.evaluation.results import Results
from brats_train.inference.case_models import CaseModels
from brats_train.report import figures
from brats_train.report.case_entry import CaseEntry
from brats_train.report.gallery import CaseSlices, Predict
from brats_train.report.page import make_page
from brats_train.report.page_figures import RunFigure
from brats_train.report.panels import draw_panels, draw_predictions
from brats_train.report.pictures import Drawing, draw_both, picture_of
from brats_train.report.scored_cases import Progress, ScoredCases, predict_cases
from brats_train.training.curves import best_epoch, draw_curves
from brats_train.training.rendering import DPI, FORMATS, render
from brats_train.training.run_dir import RunDir

__all__ = ["FIGURES", "check_unchanged", "make_report"]

# In the order of the page, each with its format there: charts as SVG, scans as pixels.
FIGURES = {
    "curves": "svg",
    "panels": "png",
    "tests": "png",
    "scores": "svg",
    "sizes": "svg",
    "reliability": "svg",
}


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
    if not epochs and (results is None or predict is None):
        raise BratsError(f"{run.path}: nothing to show, neither metrics.csv nor an evaluation.")
    drawn: dict[str, Drawing] = {}
    if epochs:
        drawn["curves"] = draw_both(draw_curves, epochs, best)
    scored = ScoredCases()
    if results is not None and predict is not None:
        scored, tests = predict_cases(results, caches, predict, config["fold"], progress)
        drawn |= _draw_results(results, scored, tests)

    wanted = {name: _wanted(run.figures / name, formats) for name in drawn}
    files: dict[str, dict[str, bytes]] = {}
    shown = []
    for name, kind in FIGURES.items():
        if name not in drawn:
            continue
        one = drawn[name]
        rendered = render(one.figure, {*wanted[name], kind}, dpi)
        files[name] = {form: rendered[form] for form in wanted[name]}
        shown.append(
            RunFigure(
                name=name,
                picture=picture_of(one, kind, rendered[kind], dpi),
                files=tuple(f"{name}.{form}" for form in wanted[name]),
            )
        )
    path = run.path.resolve()
    page = make_page(
        f"{path.parent.name}/{path.name}",
        config,
        epochs,
        best,
        results,
        shown,
        scored.entries,
        _tables(run, results),
    )
    written = [run.path / "report.html"]
    for name in FIGURES:
        written += _save(run.figures / name, files.get(name, {}))
    write_atomically(written[0], page)
    return written


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
        expected = [checkpoint["fingerprint"] for checkpoint in model.checkpoints]
        if set(loaded.fingerprints) != set(expected):
            pairs = zip(loaded.paths, loaded.fingerprints, strict=True)
            changed = [path for path, found in pairs if found not in expected]
            raise BratsError(
                f"{(changed or loaded.paths)[0]}: has changed since {results.folder} was written. "
                "Score the run again with brats eval."
            )


def _tables(run: RunDir, results: Results | None) -> dict[str, bytes]:
    """The tables that the page is made of, by name."""
    paths = [run.metrics, *([results.folder / "cases.csv"] if results else [])]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _draw_results(
    results: Results, scored: ScoredCases, tests: Sequence[CaseSlices]
) -> dict[str, Drawing]:
    drawn: dict[str, Drawing] = {}
    if scored.panels:
        drawn["panels"] = draw_both(draw_panels, list(scored.panels.values()))
    if tests:
        drawn["tests"] = draw_both(draw_predictions, tests)
    scores = {
        name: {region: list(results.values(region, name).values()) for region in results.regions}
        for name in ("dice", "hd95")
    }
    drawn["scores"] = draw_both(figures.draw_scores, scores)
    drawn["sizes"] = Drawing(figure=figures.draw_sizes(_sizes(results, scored.entries)))
    if scored.tables:
        drawn["reliability"] = Drawing(figure=figures.draw_reliability(scored.tables))
    return drawn


def _sizes(
    results: Results, entries: Sequence[CaseEntry]
) -> Mapping[str, tuple[list[float], list[float]]]:
    """True volumes in ml and Dice scores of the cases, by region."""
    factors = {entry.case: entry.ml_per_voxel for entry in entries}
    sizes = {}
    for region in results.regions:
        voxels, scores = results.values(region, "true_voxels"), results.values(region, "dice")
        known = [case for case in factors if not math.isnan(scores.get(case, math.nan))]
        sizes[region] = (
            [voxels[case] * factors[case] for case in known],
            [scores[case] for case in known],
        )
    return sizes


def _wanted(stem: Path, formats: Sequence[str]) -> list[str]:
    """The formats to write a figure in: those asked for, and what an earlier report has left."""
    return [k for k in FORMATS if k in formats or stem.with_name(f"{stem.name}.{k}").exists()]


def _save(stem: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Writes the files of a figure, and removes others of an earlier report."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in FORMATS:
        path = stem.with_name(f"{stem.name}.{kind}")
        if kind in files:
            write_atomically(path, files[kind])
            written.append(path)
        else:
            path.unlink(missing_ok=True)
    return written
