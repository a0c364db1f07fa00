"""The curves of a run: losses, IoU, learning rate and speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brats_cache.common.progress import duration
from brats_cache.common.text import count_of
from brats_train.training.rendering import INK

__all__ = ["best_epoch", "draw_curves", "training_seconds"]

_CURVES = (
    ("loss", "combined loss"),
    ("bce", "binary cross-entropy"),
    ("iou_loss", "IoU loss"),
    ("iou", "mean slice IoU"),
)
_TRAINING = "#8a8f98"
_LONGEST = 1e9  # seconds of an epoch, thirty years
_FEW = 20  # with at most so many epochs, each is marked


def best_epoch(epochs: Sequence[Mapping[str, float]], best_by: str) -> int | None:
    """Finds the epoch of best.pt.

    Args:
        epochs: Rows of metrics.csv.
        best_by: Of the recipe; without validation the last weights are the best.

    Returns:
        The number of the epoch, from 1; None where there is none.
    """
    if not epochs:
        return None
    sign = -1 if best_by == "iou" else 1
    values = np.array([sign * row.get(f"val_{best_by}", math.nan) for row in epochs])
    best = len(epochs) - 1 if np.isnan(values).all() else int(np.nanargmin(values))
    return int(epochs[best]["epoch"])


def draw_curves(
    epochs: Sequence[Mapping[str, float]], best: int | None, *, is_narrow: bool = False
) -> Figure:
    """Draws losses and IoU by epoch, like the paper's figures 14 to 17, learning rate and speed.

    Args:
        epochs: Rows of metrics.csv, at least one.
        best: The epoch to mark, None for none.
        is_narrow: One below the other, as wide as a phone.
    """
    size, shape = ((4.2, 13), (6, 1)) if is_narrow else ((9, 8.6), (3, 2))
    figure = Figure(figsize=size, layout="constrained")
    grid = list(figure.subplots(*shape).flat)
    for axes, (name, label) in zip(grid, _CURVES, strict=False):
        _draw_both(axes, epochs, name)
        axes.set(ylabel=label)
    numbers = [row["epoch"] for row in epochs]
    mark = "o" if len(epochs) <= _FEW else None
    rate, speed = grid[4:]
    rate.plot(numbers, [row["lr"] for row in epochs], color=INK, marker=mark, markersize=4)
    rate.set(ylabel="learning rate", ylim=(0, None))
    rate.ticklabel_format(axis="y", scilimits=(-2, 3))
    for axes in grid[:5]:
        if best is not None:
            label = f"best epoch, {best}"
            axes.axvline(best, color=INK, alpha=0.7, linewidth=1, linestyle=":", label=label)
        axes.set(xlabel="epoch", xlim=(numbers[0] - 0.5, numbers[-1] + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    seconds = np.cumsum([_seconds(row) for row in epochs])
    unit, word = (3600, "hours") if seconds[-1] > 3 * 3600 else (60, "minutes")
    slices = [row["slices_per_s"] for row in epochs]
    speed.plot(seconds / unit, slices, color=INK, marker=mark, markersize=4)
    speed.set(xlabel=f"{word} of training", ylabel="slices a second", ylim=(0, None))
    for axes in grid:
        axes.grid(alpha=0.3)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=2 if is_narrow else 3,
        frameon=False,
        title=_pace(epochs, float(seconds[-1]), "\n" if is_narrow else " "),
    )
    return figure


def _draw_both(axes: Any, epochs: Sequence[Mapping[str, float]], name: str) -> None:
    """Training and validation, in ink and grey: colours are for what is seen in scans."""
    numbers = [row["epoch"] for row in epochs]
    marks = ("o", "s") if len(epochs) <= _FEW else (None, None)
    for side, heading, color, line, mark in (
        ("train", "training", _TRAINING, "--", marks[0]),
        ("val", "validation", INK, "-", marks[1]),
    ):
        values = [row[f"{side}_{name}"] for row in epochs]
        if not np.isnan(values).all():
            axes.plot(numbers, values, line, color=color, marker=mark, markersize=4, label=heading)


def training_seconds(epochs: Sequence[Mapping[str, float]]) -> float:
    """The time that epochs took; one whose time is no time, as in a spoilt file, counts nothing."""
    return math.fsum(map(_seconds, epochs))


def _seconds(row: Mapping[str, float]) -> float:
    return row["seconds"] if 0 <= row["seconds"] < _LONGEST else 0.0


def _pace(epochs: Sequence[Mapping[str, float]], seconds: float, space: str) -> str:
    """Time and speed in words, `space` between the parts."""
    last = epochs[-1]
    return (
        f"{count_of(len(epochs), 'epoch')} in {duration(seconds)};"
        f"{space}the last at {last['slices_per_s']:.3g} slices/s,"
        f"{space}{last['wait_pct']:.0f} % of it waiting for data"
    )
