"""Charts of a study: history, validation curves, importances, parallel coordinates.

Each function takes Optuna's trials and returns a matplotlib figure, in the style of
`brats_train.report.figures`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from brats_train.report.figures import BLUE, ORANGE
from brats_train.training.rendering import INK
from brats_train.tuning.study import best_of

__all__ = ["draw_curves", "draw_history", "draw_importances", "draw_parallel"]

_VALUE = "validation IoU"


def draw_history(trials: Sequence[FrozenTrial]) -> Figure:
    """Draws the value of each trial, those that were pruned hollow, and the best so far.

    Args:
        trials: At least one of them complete.
    """
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for state, label, fill in (
        (TrialState.COMPLETE, "complete", BLUE),
        (TrialState.PRUNED, "pruned (last epoch)", "none"),
    ):
        shown = {one.number: one.value for one in trials if one.state == state and one.values}
        if shown:
            axes.plot(
                list(shown),
                np.array(list(shown.values()), float),
                "o",
                color=BLUE,
                markerfacecolor=fill,
                label=label,
            )
    complete = [one for one in trials if one.state == TrialState.COMPLETE]
    best = np.maximum.accumulate(np.array([one.value for one in complete], float))
    axes.step(
        [one.number for one in complete], best, where="post", color=ORANGE, label="best so far"
    )
    axes.set(xlabel="trial", ylabel=_VALUE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    _add_legend(figure)
    return figure


def draw_curves(trials: Sequence[FrozenTrial]) -> Figure:
    """Draws the validation curve of each trial, the best one's above the others.

    Args:
        trials: At least one of them with an epoch.
    """
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    best = best_of(trials)
    for trial in trials:
        curve = trial.intermediate_values
        if trial is best or not curve:
            continue
        is_pruned = trial.state == TrialState.PRUNED
        axes.plot(
            list(curve),
            list(curve.values()),
            ":" if is_pruned else "-",
            marker="x" if is_pruned else None,
            markevery=[-1],
            color="0.55",
            linewidth=1,
        )
    if best is not None and best.intermediate_values:
        curve = best.intermediate_values
        mark = "o" if len(curve) == 1 else None
        axes.plot(
            list(curve),
            list(curve.values()),
            color=ORANGE,
            linewidth=2.5,
            marker=mark,
            label=f"trial {best.number}, the best",
        )
        _add_legend(figure)
    axes.set(xlabel="epoch", ylabel=_VALUE)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    return figure


def draw_importances(importances: Mapping[str, float], *, is_narrow: bool = False) -> Figure:
    """Draws the importance of each field, the greatest on top.

    Args:
        importances: Shares of one, by field.
        is_narrow: As wide as a phone.
    """
    size = (4.2 if is_narrow else 9, 0.8 + 0.32 * len(importances))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    names = sorted(importances, key=lambda name: importances[name])
    bars = axes.barh(names, [importances[name] for name in names], color=BLUE, height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlabel("importance")
    axes.set_xlim(0, (1.35 if is_narrow else 1.15) * max(importances.values()))
    axes.grid(alpha=0.3, axis="x")
    return figure


def draw_parallel(
    trials: Sequence[FrozenTrial],
    distributions: Mapping[str, BaseDistribution],
    *,
    is_narrow: bool = False,
) -> Figure:
    """Draws a line for each complete trial through its value and its parameters.

    Args:
        trials: At least one of them complete.
        distributions: The space, an axis for each of its fields.
        is_narrow: As wide as a phone: the axes lie, one below the other.
    """
    shown = [one for one in trials if one.state == TrialState.COMPLETE]
    shown.sort(key=lambda one: one.value or 0.0)  # the best on top
    values = np.array([one.value for one in shown])
    low, high = float(values.min()), float(max(values.max(), values.min() + 1e-3))
    columns = [_unit(values, low, high)]
    labels, ticks = [_VALUE], [_ticks_between(low, high, is_log=False)]
    for name, distribution in distributions.items():
        params = [one.params[name] for one in shown]
        places, marks = _axis(params, distribution)
        columns.append(places)
        labels.append(name)
        ticks.append(marks)
    draw_axes = _draw_lying_axes if is_narrow else _draw_standing_axes
    figure, axes = draw_axes(labels, ticks)
    lines = np.stack(columns, axis=1)
    for trial, line in zip(shown, lines, strict=True):
        is_best = trial is shown[-1]
        places = np.arange(len(columns))
        axes.plot(
            *((line, -places) if is_narrow else (places, line)),
            color=ORANGE if is_best else BLUE,
            alpha=1 if is_best else 0.3 + 0.5 * line[0],  # the better, the stronger
            linewidth=2.5 if is_best else 1.2,
        )
    axes.spines[:].set_visible(False)
    return figure


Ticks = list[tuple[float, str]]


def _axis(params: Sequence[Any], distribution: BaseDistribution) -> tuple[np.ndarray, Ticks]:
    """Heights in [0, 1] of the parameters on their axis, and the axis's ticks."""
    if isinstance(distribution, CategoricalDistribution):
        choices = list(distribution.choices)
        top = max(1, len(choices) - 1)
        marks = [(number / top, str(choice)) for number, choice in enumerate(choices)]
        return np.array([choices.index(one) / top for one in params]), marks
    is_log: bool = distribution.log  # type: ignore[attr-defined]
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    change = np.log if is_log else np.asarray
    heights = _unit(change(params), float(change(low)), float(change(high)))
    return heights, _ticks_between(low, high, is_log=is_log)


def _ticks_between(low: float, high: float, *, is_log: bool) -> Ticks:
    """Five ticks, or the powers of ten on a logarithmic axis of more than one."""
    if is_log and high >= 10 * low:
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        span = math.log(high / low)
        return [(math.log(10.0**power / low) / span, f"{10.0**power:g}") for power in powers]
    values = np.geomspace(low, high, 5) if is_log else np.linspace(low, high, 5)
    return [(number / 4, f"{value:.3g}") for number, value in enumerate(values)]


def _unit(values: Any, low: float, high: float) -> np.ndarray:
    """Values between `low` and `high` as heights in [0, 1]."""
    return (np.asarray(values, float) - low) / (high - low)


def _draw_standing_axes(labels: Sequence[str], ticks: Sequence[Ticks]) -> tuple[Figure, Any]:
    """An axis at each of x = 0, 1, …, from y = 0 to 1."""
    count = len(labels)
    figure = Figure(figsize=(max(9, 1.1 * count), 4.6), layout="constrained")
    axes = figure.subplots()
    for place, marks in enumerate(ticks):
        axes.axvline(place, color=INK, alpha=0.7, linewidth=1)
        for height, text in marks:
            _write_tick(axes, text, (place, height), (-4, 0), ha="right", va="center")
    axes.set_xticks(range(count), labels, rotation=20, ha="right", fontsize=9)
    axes.set(xlim=(-0.8, count - 0.8), ylim=(-0.06, 1.06), yticks=[])
    return figure, axes


def _draw_lying_axes(labels: Sequence[str], ticks: Sequence[Ticks]) -> tuple[Figure, Any]:
    """An axis at each of y = 0, -1, …, from x = 0 to 1, its name above it."""
    count = len(labels)
    figure = Figure(figsize=(4.2, 0.75 * count), layout="constrained")
    axes = figure.subplots()
    for place, (name, marks) in enumerate(zip(labels, ticks, strict=True)):
        axes.axhline(-place, color=INK, alpha=0.7, linewidth=1)
        _write_tick(axes, name, (0, -place), (0, 4), ha="left", va="bottom", fontsize=9)
        for at, text in marks:
            side = "left" if at < 0.02 else "right" if at > 0.98 else "center"
            _write_tick(axes, text, (at, -place), (0, -4), ha=side, va="top")
    axes.set(xlim=(-0.02, 1.02), ylim=(0.6 - count, 0.4), xticks=[], yticks=[])
    return figure, axes


def _write_tick(
    axes: Any, text: str, place: tuple[float, float], shift: tuple[float, float], **about: Any
) -> None:
    """A text over the lines, shifted by points."""
    paper = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    about = {"fontsize": 8, "bbox": paper, "zorder": 4, "parse_math": False, **about}
    axes.annotate(text, place, xytext=shift, textcoords="offset points", **about)


def _add_legend(figure: Figure) -> None:
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
