"""Figures of scans with truth and prediction, and where the two disagree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from brats_cache.common.errors import printable
from brats_cache.imaging.labels import REGIONS
from brats_train.inference.postprocess import label_volume
from brats_train.report.display import MODALITY_NAMES, scale_bar_mm
from brats_train.report.gallery import CaseSlices
from brats_train.report.palette import (
    FALSE_ALARM,
    FOUND,
    MISSED,
    PREDICTION,
    REGION_NAMES,
    TISSUES,
    TRUTH,
)

__all__ = ["draw_panels", "draw_predictions"]

_LINES: dict[str, Any] = {TRUTH: "solid", PREDICTION: "dashed", FOUND: "solid"}
_CELL = 2.15  # inches
# Behind what is written over a scan; an outline of the letters would make drawings of them in SVG.
_SHADOW: dict[str, Any] = {"facecolor": "black", "alpha": 0.45, "linewidth": 0, "pad": 1}


def draw_panels(cases: Sequence[tuple[str, CaseSlices]], *, is_narrow: bool = False) -> Figure:
    """Draws one row for each case, like the paper's figure 12.

    Scan, truth and prediction with their tissues, then true positives, false negatives and false
    positives over FLAIR (whole tumour) and T1ce (tumour core, where the model predicts it).

    Args:
        cases: Heading of each row, such as "best, Dice 0.93", and the slices to choose from.
        is_narrow: Two columns, and so several rows for each case, as wide as a phone.
    """
    channels = [
        tuple(_channel(slices.modalities, name) for name in ("flair", "t1ce"))
        for _, slices in cases
    ]
    columns = 5 if any(flair != t1ce for flair, t1ce in channels) else 4
    across = 2 if is_narrow else columns
    down = -(-columns // across)  # rows for each case
    figure, grid = _sheet(down * len(cases), across)
    rows = zip(grid.reshape(len(cases), -1), cases, channels, strict=True)
    for axes, (heading, slices), (flair, t1ce) in rows:
        shown = 4 if flair == t1ce else 5
        for unused in axes[shown:]:
            unused.set_visible(False)
        main = slices.regions[0]
        core = "tc" if "tc" in slices.known else main
        one = slices.only(slices.widest(main))
        assert one.truth is not None
        for column, channel in enumerate((flair, flair, flair, flair, t1ce)[:shown]):
            _show(axes[column], one, channel)
        _show_mask(axes[1], one.truth[0], one.regions, one.known, TRUTH)
        _show_mask(axes[2], one.prediction[0], one.regions, one.regions, PREDICTION)
        _set_title(axes[0], heading, one.case, f"z = {one.z_indices[0]}")
        axes[1].set_title("truth", fontsize=8)
        axes[2].set_title("prediction", fontsize=8)
        for column, region in ((3, main), (4, core))[: shown - 3]:
            _show_agreement(axes[column], one, region)
            axes[column].set_title(f"errors, {REGION_NAMES[region]}", fontsize=8)
    roles = [
        *_outlines({"truth": TRUTH, "prediction": PREDICTION}),
        Patch(facecolor=MISSED, edgecolor="0.2", label="missed (FN)"),
        Patch(facecolor=FALSE_ALARM, edgecolor="0.2", hatch="////", label="false alarm (FP)"),
        *_outlines({"found (TP)": FOUND}),
    ]
    return _add_legend(figure, roles, _tissues(slices for _, slices in cases))


def draw_predictions(cases: Sequence[CaseSlices], *, is_narrow: bool = False) -> Figure:
    """Draws one column for each case, like the paper's figure 13.

    The scan above, with the prediction below, in the slice where the prediction is largest.

    Args:
        cases: The cases.
        is_narrow: A row for each case instead, as wide as a phone.
    """
    figure, grid = _sheet(len(cases), 2) if is_narrow else _sheet(2, len(cases))
    grid = grid.T if is_narrow else grid
    for column, slices in enumerate(cases):
        one = slices.only(slices.widest(slices.regions[0]))
        channel = _channel(one.modalities, "flair")
        for axes in grid[:, column]:
            _show(axes, one, channel)
        _show_mask(grid[1, column], one.prediction[0], one.regions, one.regions, PREDICTION)
        _set_title(grid[0, column], one.case, f"z = {one.z_indices[0]}")
        if not one.prediction.any():
            grid[1, column].set_title("nothing predicted", fontsize=8)
    return _add_legend(figure, _outlines({"prediction": PREDICTION}), _tissues(cases))


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
    """A slice with what a reader needs: modality, sides and a scale."""
    image, (low, high) = one.images[0, channel], one.windows[channel]
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=one.aspect, interpolation="nearest")
    # A square around every head, so that all cells are of one size.
    height, width = image.shape
    side = max(height * one.aspect, width)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    axes.set_xlim(middle_x - side / 2, middle_x + side / 2)
    axes.set_ylim(middle_y + side / one.aspect / 2, middle_y - side / one.aspect / 2)
    about: dict[str, Any] = {"color": "white", "bbox": _SHADOW, "transform": axes.transAxes}
    modality = printable(_name(one.modalities[channel]))
    axes.text(0.03, 0.97, modality, va="top", fontsize=7, parse_math=False, **about)
    # Rows run towards posterior and columns towards left: the patient's right is on the left.
    axes.text(0.03, 0.5, "R", va="center", fontsize=8, weight="bold", **about)
    axes.text(0.97, 0.5, "L", va="center", ha="right", fontsize=8, weight="bold", **about)
    side_mm = side * one.pixel_mm[1]
    bar = scale_bar_mm(side_mm)
    axes.plot(
        [0.97 - bar / side_mm, 0.97],
        [0.035, 0.035],
        color="white",
        linewidth=1.5,
        solid_capstyle="butt",
        path_effects=[withStroke(linewidth=3, foreground="black")],
        transform=axes.transAxes,
    )
    axes.text(0.97, 0.055, f"{bar / 10:g} cm", ha="right", va="bottom", fontsize=6, **about)


def _show_mask(
    axes: Any, mask: np.ndarray, regions: Sequence[str], known: Sequence[str], color: str
) -> None:
    """A mask, (K, Y, X) bool: its outline, within it the tissues where all regions are known."""
    if set(known) == set(REGIONS):
        labels = label_volume(mask, regions)
        for label in (2, 1, 3):
            _fill(axes, labels == label, TISSUES[label][1])
    else:
        _fill(axes, mask[0], color)
    _outline(axes, mask[0], color)


def _show_agreement(axes: Any, one: CaseSlices, region: str) -> None:
    index = one.regions.index(region)
    assert one.truth is not None
    truth, found = one.truth[0, index], one.prediction[0, index]
    _fill(axes, truth & ~found, MISSED)
    _fill(axes, found & ~truth, FALSE_ALARM, hatch="//////")
    _outline(axes, truth & found, FOUND)


def _fill(axes: Any, mask: np.ndarray, color: str, hatch: str = "") -> None:
    if not mask.any():
        return
    sharp = _magnified(mask)
    axes.contourf(*sharp, levels=(0.5, 1.5), colors=[color], alpha=0.5)
    if hatch:
        filled = axes.contourf(*sharp, levels=(0.5, 1.5), colors="none", hatches=[hatch])
        filled.set_edgecolor(color)
        filled.set_linewidth(0)


def _outline(axes: Any, mask: np.ndarray, color: str) -> None:
    if mask.any():
        style = {"linewidths": 1.2, "linestyles": _LINES[color]}
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


def _outlines(colors: dict[str, str]) -> list[Line2D]:
    """Legend entries, bright lines on the dark of a scan."""
    dark = [withStroke(linewidth=4, foreground="0.2")]
    return [
        Line2D([], [], color=color, linestyle=_LINES[color], path_effects=dark, label=label)
        for label, color in colors.items()
    ]


def _tissues(cases: Iterable[CaseSlices]) -> list[Patch]:
    """Legend entries of the tissues, where a mask with all regions tells them."""
    if not any(set(one.regions) == set(REGIONS) for one in cases):
        return []
    return [
        Patch(facecolor=TISSUES[label][1], edgecolor="0.2", label=TISSUES[label][0])
        for label in (2, 1, 3)
    ]


def _add_legend(figure: Figure, *rows: list[Any]) -> Figure:
    """A legend below all, a row for each list; one column where the figure is narrow."""
    most = max(map(len, rows))
    is_narrow = figure.get_figwidth() < 1.7 * most
    blank = Patch(alpha=0)
    columns = [
        entry for column in zip_longest(*filter(None, rows), fillvalue=blank) for entry in column
    ]
    figure.legend(
        handles=[entry for row in rows for entry in row] if is_narrow else columns,
        loc="outside lower center",
        ncols=1 if is_narrow else most,
        frameon=False,
        fontsize=8,
    )
    return figure


def _channel(names: Sequence[str], wanted: str) -> int:
    """The index of the channel `wanted`; the last one where it is not there."""
    return list(names).index(wanted) if wanted in names else len(names) - 1


def _name(modality: str) -> str:
    return MODALITY_NAMES.get(modality, modality)
