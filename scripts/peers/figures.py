"""The figure of a benchmark: a bar for each way."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from brats_train.report.figures import BLUE
from brats_train.training.rendering import INK

__all__ = ["draw_bars", "number", "shown_rounds"]

PEER, LIMIT = "#B9BEC6", "none"


def shown_rounds(result: Mapping[str, Any], way: str) -> list[float]:
    """What table and figure show of a way, in each round: seconds a unit, or units a second."""
    rounds = result["ways"][way]["rounds"]
    return [1 / rate for rate in rounds] if result["shown"] == "seconds" else list(rounds)


def number(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def draw_bars(result: Mapping[str, Any]) -> Figure:
    """Draws medians as bars from the fastest to the slowest, and all rounds as dots.

    brats is blue, a limit is hatched, and a scale is logarithmic where values are far apart.

    Args:
        result: Of one benchmark, as in results.json.
    """
    is_time = result["shown"] == "seconds"
    rounds = {way: shown_rounds(result, way) for way in result["ways"]}
    medians = {way: statistics.median(values) for way, values in rounds.items()}
    order = sorted(medians, key=lambda way: medians[way], reverse=not is_time)
    figure = Figure(figsize=(8, 0.9 + 0.42 * len(order)), layout="constrained")
    axes = figure.subplots()
    for lane, way in enumerate(order):
        peer = result["ways"][way]["peer"]
        axes.barh(
            lane,
            medians[way],
            height=0.62,
            color={"brats": BLUE, "limit": LIMIT}.get(peer, PEER),
            edgecolor=INK if peer == "limit" else "none",
            hatch="//" if peer == "limit" else None,
        )
        axes.plot(rounds[way], [lane] * len(rounds[way]), ".", color=INK, markersize=3)
        axes.annotate(
            number(medians[way]),
            (max(rounds[way]), lane),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    largest, smallest = max(medians.values()), min(medians.values())
    is_log = largest > 30 * smallest
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.set_xlim(smallest / 3, largest * 4)
    else:
        axes.set_xlim(0, max(map(max, rounds.values())) * 1.15)
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    unit = result["unit"]
    what = f"seconds a {unit}, less is better" if is_time else f"{unit}s a second, more is better"
    axes.set_xlabel(f"{what} (logarithmic)" if is_log else what)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
    return figure
