"""Charts of an evaluation: scores by case and by tumour volume, reliability.

Each function takes plain values and returns a matplotlib figure. Colours are those of `palette`,
and Okabe and Ito's for runs; line styles and markers differ as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from brats_train.evaluation.calibration import Table, calibration_error, reliability
from brats_train.report.palette import REGION_COLORS
from brats_train.training.rendering import INK

__all__ = [
    "BLUE",
    "GREEN",
    "ORANGE",
    "REGION_STYLES",
    "RUN_STYLES",
    "draw_reliability",
    "draw_scores",
    "draw_sizes",
]

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
_VERMILION, _SKY = "#D55E00", "#56B4E9"
# Colour, marker and line style of each region.
REGION_STYLES: Mapping[str, tuple[str, str, str]] = {
    "wt": (REGION_COLORS["wt"], "o", "-"),
    "tc": (REGION_COLORS["tc"], "s", "--"),
    "et": (REGION_COLORS["et"], "^", ":"),
}
# The same for runs beside each other.
RUN_STYLES: Sequence[tuple[str, str, str]] = (
    (BLUE, "o", "-"),
    (ORANGE, "s", "--"),
    (GREEN, "^", "-."),
    (PURPLE, "v", ":"),
    (_VERMILION, "D", "-"),
    (_SKY, "P", "--"),
)
_GREY = "#7d848c"  # can be seen on white and on dark
_WORST_MM = 374  # HD95 where one of the masks is empty, see docs/metrics.md


def draw_scores(
    values: Mapping[str, Mapping[str, Sequence[float]]], *, is_narrow: bool = False
) -> Figure:
    """Draws the distributions of Dice and HD95 over cases.

    A dot for each case, a box from quartile to quartile with the median, a diamond at the mean.

    Args:
        values: "dice" and "hd95", by region, one value for each case; NaN is left out.
        is_narrow: One below the other, as wide as a phone.
    """
    regions = list(values["dice"])
    height = 1.4 + 0.9 * len(regions)
    size, shape = ((4.2, 2 * height), (2, 1)) if is_narrow else ((9, height), (1, 2))
    figure = Figure(figsize=size, layout="constrained")
    for axes, (name, label) in zip(
        figure.subplots(*shape, sharey=True),
        (("dice", "Dice"), ("hd95", "HD95 in mm")),
        strict=True,
    ):
        for lane, region in enumerate(regions):
            _draw_lane(axes, lane, _known(values[name][region]), REGION_STYLES[region])
        axes.set(xlabel=label, ylim=(len(regions) - 0.5, -0.5))
        axes.set_yticks(range(len(regions)), [region.upper() for region in regions])
        axes.grid(alpha=0.3, axis="x")
    dice, distance = figure.axes
    dice.set_xlim(-0.02, 1.02)
    distance.set_xscale("symlog", linthresh=1)
    distance.set_xlim(-0.1, _WORST_MM * 1.3)
    distance.set_xticks([0, 1, 10, 100, _WORST_MM], ["0", "1", "10", "100", str(_WORST_MM)])
    distance.minorticks_off()
    return figure


def draw_sizes(sizes: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Draws Dice against the true volume.

    Args:
        sizes: Volumes in ml and Dice scores of the cases, by region. A case without the region is
            drawn hollow at the left edge.
    """
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    held = [volume for volumes, _ in sizes.values() for volume in volumes if volume > 0]
    edge = min(held, default=1.0) / 3
    has_empty = False
    for region, (volumes, scores) in sizes.items():
        color, mark, _ = REGION_STYLES[region]
        volume, score = np.asarray(volumes, float), np.asarray(scores, float)
        is_empty = volume == 0
        has_empty |= bool(is_empty.any())
        axes.plot(
            volume[~is_empty], score[~is_empty], mark, color=color, alpha=0.9, label=region.upper()
        )
        axes.plot(
            np.full(is_empty.sum(), edge),
            score[is_empty],
            mark,
            color=color,
            markerfacecolor="none",
        )
    axes.set_xscale("log")
    axes.set_xlim(edge / 1.5, max(held, default=1.0) * 1.5)
    axes.set_ylim(-0.03, 1.03)
    axes.set(xlabel="true volume in ml", ylabel="Dice")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    if has_empty:
        axes.axvline(edge * 1.5, color=INK, alpha=0.7, linewidth=1, linestyle=":")
        # Such a case scores 0 or 1, so that the middle is free.
        axes.text(edge, 0.5, "no true region", fontsize=9, rotation=90, ha="center", va="center")
    figure.legend(loc="outside upper center", ncols=len(sizes), frameon=False)
    return figure


def draw_reliability(tables: Mapping[str, Table]) -> Figure:
    """Draws reliability diagrams with 16 bins (Guo et al. 2017), and the voxels of each bin.

    Args:
        tables: By region, see `brats_train.evaluation.calibration.probability_table`.
    """
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot((0, 1), (0, 1), color=INK, alpha=0.7, linewidth=1, label="perfect")
    for region, table in tables.items():
        color, mark, line = REGION_STYLES[region]
        diagram = reliability(table)
        held = diagram.voxels > 0
        label = f"{region.upper()}, expected calibration error {calibration_error(table):.4f}"
        axes.plot(
            diagram.probability[held],
            diagram.frequency[held],
            line,
            marker=mark,
            color=color,
            label=label,
        )
        edges = np.linspace(0, 1, len(diagram.voxels) + 1)
        counts.stairs(diagram.voxels, edges, color=color, linestyle=line, linewidth=1.5)
    axes.set(ylabel="share of true voxels", xlim=(0, 1), ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    counts.set_yscale("log")
    counts.set(xlabel="predicted probability", ylabel="voxels")
    for one in (axes, counts):
        one.grid(alpha=0.3)
    return figure


def _draw_lane(axes: Any, lane: int, values: np.ndarray, style: tuple[str, str, str]) -> None:
    if not values.size:
        axes.text(0.5, lane, "undefined", ha="center", va="center", alpha=0.7)
        return
    color, mark, _ = style
    # Neighbouring values are shifted sideways in turn, so that equal ones stay visible.
    shift = 0.18 * (np.arange(values.size) % 5 - 2) / 2
    if values.size > 3:
        axes.boxplot(
            [values],
            positions=[lane],
            orientation="horizontal",
            widths=0.62,
            showfliers=False,
            whis=(5, 95),
            medianprops={"color": INK, "linewidth": 2},
            boxprops={"color": _GREY},
            whiskerprops={"color": _GREY},
            capprops={"color": _GREY},
        )
    else:
        shift = np.zeros(values.size)
    axes.plot(np.sort(values), lane + shift, mark, color=color, alpha=0.9, markersize=5)
    axes.plot(
        [math.fsum(values) / values.size],
        [lane + 0.36],
        "D",
        color=INK,
        markersize=6,
        clip_on=False,
    )


def _known(values: Sequence[float]) -> np.ndarray:
    known = np.asarray(values, np.float64)
    return known[~np.isnan(known)]
