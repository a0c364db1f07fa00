"""Figures of scans with truth and prediction, and where the two disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from brats_cache.common.errors import printable
from brats_train.report.display import MODALITY_NAMES
from brats_train.report.gallery import CaseSlices

__all__ = ["draw_panels", "draw_predictions"]

# Okabe and Ito's colours, light enough for dark tissue: false negatives, false positives, both.
TRUTH, PREDICTION, AGREEMENT = "#56B4E9", "#E69F00", "#F5F5F5"
_LINES: dict[str, Any] = {"wt": "solid", "tc": "dashed", "et": "dotted"}
_CELL = 2.15  # inches


def draw_panels(cases: Sequence[tuple[str, CaseSlices]]) -> Figure:
    """Draws one row for each case, like the paper's figure 12.

    Scan, truth, prediction, then true positives, false negatives and false positives over FLAIR
    (whole tumour) and T1ce (tumour core, where the model predicts it).

    Args:
        cases: Heading of each row, such as "best, Dice 0.93", and the slices to choose from.
    """
    names = cases[0][1].modalities
    flair, t1ce = _channel(names, "flair"), _channel(names, "t1ce")
    columns = 4 if t1ce == flair else 5
    figure, grid = _sheet(len(cases), columns)
    for axes, (heading, slices) in zip(grid, cases, strict=True):
        main = slices.regions[0]
        core = "tc" if "tc" in slices.known else main
        one = slices.only(slices.widest(main))
        assert one.truth is not None
        for column, channel in enumerate((flair, flair, flair, flair, t1ce)[:columns]):
            _show(axes[column], one, channel)
        for index, region in enumerate(one.regions):
            _outline(axes[1], one.truth[0, index], TRUTH, region)
            _outline(axes[2], one.prediction[0, index], PREDICTION, region)
        _set_title(axes[0], heading, one.case, f"z = {one.z_indices[0]}")
        axes[1].set_title("truth", fontsize=8)
        axes[2].set_title("prediction", fontsize=8)
        for column, region, channel in ((3, main, flair), (4, core, t1ce))[: columns - 3]:
            _show_agreement(axes[column], one, region)
            axes[column].set_title(f"{region.upper()} over {_name(names[channel])}", fontsize=8)
    white = [withStroke(linewidth=4, foreground="0.25")]
    entries = [
        Patch(facecolor=TRUTH, edgecolor="0.2", label="missed (FN)"),
        Patch(facecolor=PREDICTION, edgecolor="0.2", hatch="////", label="false alarm (FP)"),
        Line2D([], [], color=AGREEMENT, path_effects=white, label="found (TP)"),
    ]
    return _add_legend(figure, [*entries, *_region_lines(cases[0][1].regions)])


def draw_predictions(cases: Sequence[CaseSlices]) -> Figure:
    """Draws one column for each case, like the paper's figure 13.

    The scan above, with the prediction below, in the slice where the prediction is largest.
    """
    figure, grid = _sheet(2, len(cases))
    for column, slices in enumerate(cases):
        one = slices.only(slices.widest(slices.regions[0]))
        channel = _channel(one.modalities, "flair")
        for axes in grid[:, column]:
            _show(axes, one, channel)
        for index, region in enumerate(one.regions):
            _outline(grid[1, column], one.prediction[0, index], PREDICTION, region)
        _set_title(
            grid[0, column], one.case, f"z = {one.z_indices[0]}, {_name(one.modalities[channel])}"
        )
        if not one.prediction.any():
            grid[1, column].set_title("nothing predicted", fontsize=8)
    entries = [Line2D([], [], color=PREDICTION, label="prediction")]
    return _add_legend(figure, [*entries, *_region_lines(cases[0].regions)])


def _sheet(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    height = (_CELL + 0.5) * rows + 0.4  # three lines above a cell, the legend below all
    figure = Figure(figsize=(_CELL * columns, height), layout="compressed")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("black")
    return figure, grid


def _show(axes: Any, one: CaseSlices, channel: int) -> None:
    image = one.images[0, channel]
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect=one.aspect, interpolation="nearest")
    # A square around every head, so that all cells are of one size.
    height, width = image.shape
    side = max(height * one.aspect, width)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    axes.set_xlim(middle_x - side / 2, middle_x + side / 2)
    axes.set_ylim(middle_y + side / one.aspect / 2, middle_y - side / one.aspect / 2)


def _show_agreement(axes: Any, one: CaseSlices, region: str) -> None:
    index = one.regions.index(region)
    assert one.truth is not None
    truth, found = one.truth[0, index], one.prediction[0, index]
    _fill(axes, truth & ~found, TRUTH)
    _fill(axes, found & ~truth, PREDICTION, hatch="//////")
    _outline(axes, truth & found, AGREEMENT)


def _fill(axes: Any, mask: np.ndarray, color: str, hatch: str = "") -> None:
    if not mask.any():
        return
    sharp = _magnified(mask)
    axes.contourf(*sharp, levels=(0.5, 1.5), colors=[color], alpha=0.55)
    if hatch:
        filled = axes.contourf(*sharp, levels=(0.5, 1.5), colors="none", hatches=[hatch])
        filled.set_edgecolor(color)
        filled.set_linewidth(0)
    axes.contour(*sharp, levels=(0.5,), colors=[color], linewidths=0.9)


def _outline(axes: Any, mask: np.ndarray, color: str, region: str = "wt") -> None:
    if mask.any():
        style = {"linewidths": 1.1, "linestyles": _LINES[region]}
        axes.contour(*_magnified(mask), levels=(0.5,), colors=[color], **style)


def _magnified(mask: np.ndarray, factor: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns, rows and values for contours that follow the edges of pixels.

    A border of background closes contours at the edge of the image.
    """
    sharp = np.pad(mask.astype(np.uint8).repeat(factor, 0).repeat(factor, 1), 1)
    rows, columns = ((np.arange(size) - 0.5) / factor - 0.5 for size in sharp.shape)
    return columns, rows, sharp


def _set_title(axes: Any, *lines: str) -> None:
    """Sets a title without formulas: a name may hold what matplotlib would parse as one."""
    text = "\n".join(map(printable, lines))
    axes.set_title(text, fontsize=8, loc="left", parse_math=False)


def _region_lines(regions: Sequence[str]) -> list[Line2D]:
    if len(regions) == 1:
        return []
    return [Line2D([], [], color="0.2", linestyle=_LINES[r], label=r.upper()) for r in regions]


def _add_legend(figure: Figure, entries: list[Any]) -> Figure:
    figure.legend(
        handles=entries, loc="outside lower center", ncols=len(entries), frameon=False, fontsize=8
    )
    return figure


def _channel(names: Sequence[str], wanted: str) -> int:
    """The index of the channel `wanted`; the last one where it is not there."""
    return list(names).index(wanted) if wanted in names else len(names) - 1


def _name(modality: str) -> str:
    return MODALITY_NAMES.get(modality, modality)
