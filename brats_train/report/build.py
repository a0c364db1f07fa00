"""Makes the figures of a run and its report page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_cache.format.reader import Cache
from brats_train.evaluation.results import Results
from brats_train.inference.case_models import CaseModels
from brats_train.report import figures
from brats_train.report.case_entry import CaseEntry
from brats_train.report.gallery import CaseSlices, Predict
from brats_train.report.html import data_uri
from brats_train.report.page import make_page
from brats_train.report.page_figures import Picture
from brats_train.report.panels import draw_panels, draw_predictions
from brats_train.report.scored_cases import Progress, ScoredCases, choose_panels, predict_cases
from brats_train.training.curves import best_epoch, draw_curves
from brats_train.training.rendering import DPI, FORMATS, darken, render
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
_WEBP_QUALITY = 85


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
    drawn: dict[str, _Drawing] = {}
    if epochs:
        drawn["curves"] = _both(draw_curves, epochs, best)
    scored = ScoredCases()
    if results is not None and predict is not None:
        scored, tests = predict_cases(results, caches, predict, config["fold"], progress)
        drawn |= _draw_results(results, scored, tests)

    wanted = {name: _wanted(run.figures / name, formats) for name in drawn}
    files: dict[str, dict[str, bytes]] = {}
    pictures = []
    for name, kind in FIGURES.items():
        if name not in drawn:
            continue
        one = drawn[name]
        rendered = render(one.figure, {*wanted[name], kind}, dpi)
        files[name] = {form: rendered[form] for form in wanted[name]}
        pictures.append(
            Picture(
                name=name,
                uri=_image_uri(rendered[kind], kind, dpi),
                dark_uri=_dark_uri(one.figure, kind, dpi),
                narrow_uris=_uris(one.narrow, kind) if one.narrow else None,
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
        pictures,
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
        for path, found, expected in zip(
            loaded.paths, loaded.fingerprints, model.checkpoints, strict=True
        ):
            if found != expected["fingerprint"]:
                raise BratsError(
                    f"{path}: has changed since {results.folder} was written. Score the run again "
                    "with brats eval."
                )


def _tables(run: RunDir, results: Results | None) -> dict[str, bytes]:
    """The tables that the page is made of, by name."""
    paths = [run.metrics, *([results.folder / "cases.csv"] if results else [])]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """A figure, and the same for a phone where it is wide."""

    figure: Figure
    narrow: Figure | None = None


def _both(draw: Callable[..., Figure], *values: Any) -> _Drawing:
    return _Drawing(figure=draw(*values), narrow=draw(*values, is_narrow=True))


def _draw_results(
    results: Results, scored: ScoredCases, tests: Sequence[CaseSlices]
) -> dict[str, _Drawing]:
    drawn: dict[str, _Drawing] = {}
    headings = choose_panels(results)
    if headings:
        shown = [(text, scored.panels[case]) for case, text in headings.items()]
        drawn["panels"] = _both(draw_panels, shown)
    if tests:
        drawn["tests"] = _both(draw_predictions, tests)
    scores = {
        name: {region: list(results.values(region, name).values()) for region in results.regions}
        for name in ("dice", "hd95")
    }
    drawn["scores"] = _both(figures.draw_scores, scores)
    drawn["sizes"] = _Drawing(figure=figures.draw_sizes(_sizes(results, scored.entries)))
    if scored.tables:
        drawn["reliability"] = _Drawing(figure=figures.draw_reliability(scored.tables))
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


def _uris(figure: Figure, kind: str) -> tuple[str, str]:
    """A figure for a white and for a dark page, as data URIs. It is dark afterwards."""
    return _image_uri(render(figure, {kind})[kind], kind, DPI), _dark_uri(figure, kind, DPI)


def _dark_uri(figure: Figure, kind: str, dpi: int) -> str:
    """A figure that was rendered, darkened and rendered again, as a data URI."""
    darken(figure)
    return _image_uri(render(figure, {kind}, dpi)[kind], kind, dpi)


def _image_uri(content: bytes, kind: str, dpi: int) -> str:
    """A figure as a data URI: SVG, or WebP of at most `DPI`, a tenth of the size of PNG."""
    if kind == "svg":
        return data_uri(content, "image/svg+xml")
    png: Any = np.frombuffer(content, np.uint8)
    pixels = cv2.imdecode(png, cv2.IMREAD_COLOR)
    assert pixels is not None, "matplotlib writes whole PNG files"
    if dpi > DPI:
        share = DPI / dpi
        pixels = cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    _, webp = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, _WEBP_QUALITY])
    return data_uri(webp.tobytes(), "image/webp")
