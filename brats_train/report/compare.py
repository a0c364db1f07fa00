"""The page that compares runs: what differs, curves, scores with paired differences."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from brats_cache.common.text import count_of
from brats_train.evaluation.comparison import Estimate, MetricComparison
from brats_train.report.figures import RUN_STYLES
from brats_train.report.html import assemble, asset, shown_number
from brats_train.report.palette import REGION_NAMES
from brats_train.report.pictures import Caption, Drawing, draw_both, figure_html, picture_of
from brats_train.training.rendering import INK

__all__ = ["TITLE", "ComparedRun", "as_text", "draw_cases", "draw_validation", "make_page"]

TITLE = "Comparison: "  # the beginning of every page's title

# What each score is called, and its digits.
_METRICS = {"dice": ("Dice", 3), "nsd": ("NSD 1 mm", 3), "hd95": ("HD95 mm", 1)}
_NAME_WIDTH = 36  # characters of a line of a run's name in a figure
_LONGEST_LABEL = 16  # characters of a run's name at an axis
_NUM_MARKS = 15  # of a curve


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One of the runs.

    Attributes:
        name: As it is called on the page.
        config: What config.json holds.
        epochs: Rows of metrics.csv.
    """

    name: str
    config: Mapping[str, Any]
    epochs: Sequence[Mapping[str, float]]


def make_page(
    runs: Sequence[ComparedRun],
    differences: Sequence[tuple[str, Sequence[Any]]],
    scores: Sequence[MetricComparison],
    summary: str,
) -> bytes:
    """Makes the page, one file that needs no other.

    Args:
        runs: The runs; differences are against the first.
        differences: Settings that differ, and the value that each run has.
        scores: Of `compare_results`; empty where not all are scored.
        summary: A sentence on what is compared.
    """
    first = runs[0].name
    dice = [one for one in scores if one.metric == "dice"]
    is_wide = len(dice) != 1  # one panel has room for the curves beside it
    figures = []
    if any(run.epochs for run in runs):
        text = "Mean slice IoU on the validation slices, by epoch."
        drawing = _drawing(is_wide, draw_validation, runs)
        figures.append(figure_html(Caption("Validation", text, is_wide), picture_of(drawing)))
    if dice:
        text = f"A mark is a case. Above the line its mask is better than that of {first}."
        drawing = _drawing(is_wide, draw_cases, runs, dice)
        figures.append(figure_html(Caption("Case by case", text, is_wide), picture_of(drawing)))
    return assemble(
        "sections.html",
        style=asset("report.css").decode(),
        scripts=[],
        texts={"title": f"{TITLE}{', '.join(run.name for run in runs)}", "summary": summary},
        figures="".join(figures),
        sections=(_score_table(runs, scores) if scores else "")
        + _difference_table(runs, differences),
    )


def as_text(runs: Sequence[ComparedRun], scores: Sequence[MetricComparison]) -> str:
    """The scores as lines for a terminal: of each run, and its difference from the first."""
    lines = []
    for one in scores:
        label, digits = _METRICS[one.metric]
        lines.append(f"{one.region.upper()} {label}, {one.num_cases} cases")
        for run, mean, difference in zip(runs, one.means, one.differences, strict=True):
            text = f"  {run.name:<30.30} {_shown(mean, digits)}"
            if run is not runs[0]:
                text += f"  {_shown(difference, digits, signed=True)}"
            lines.append(text)
    return "\n".join(lines)


def draw_validation(runs: Sequence[ComparedRun], *, is_narrow: bool = False) -> Figure:
    """Draws the validation IoU of each run by epoch.

    Args:
        runs: The runs, one of them with epochs.
        is_narrow: As wide as a phone.
    """
    figure = Figure(figsize=(4.2, 4) if is_narrow else (9, 4.4), layout="constrained")
    axes = figure.subplots()
    for run, (color, mark, line) in zip(runs, _styles(runs), strict=True):
        axes.plot(
            [row["epoch"] for row in run.epochs],
            [row.get("val_iou", math.nan) for row in run.epochs],
            line,
            color=color,
            marker=mark,
            markersize=5,
            markevery=max(1, len(run.epochs) // _NUM_MARKS),
        )
    axes.set(xlabel="epoch", ylabel="validation slice IoU")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    _add_legend(figure, axes.lines, runs, is_narrow)
    return figure


def draw_cases(
    runs: Sequence[ComparedRun], scores: Sequence[MetricComparison], *, is_narrow: bool = False
) -> Figure:
    """Draws Dice of each case against that of the first run, a panel a region.

    Args:
        runs: The runs.
        scores: Their Dice, at least of one region.
        is_narrow: One panel below the other, as wide as a phone.
    """
    count = len(scores)
    first = runs[0].name if len(runs[0].name) <= _LONGEST_LABEL else "the first run"
    size = (4.2, 4.2 * count) if is_narrow else (9, 0.7 + 8.4 / count)
    shape = (count, 1) if is_narrow else (1, count)
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(*shape, squeeze=False).flat)
    for axes, one in zip(panels, scores, strict=True):
        axes.plot((0, 1), (0, 1), color=INK, alpha=0.7, linewidth=1)
        for values, (color, mark, _) in zip(one.values[1:], _styles(runs)[1:], strict=True):
            axes.plot(one.values[0], values, mark, color=color, alpha=0.8)
        axes.set_title(f"{REGION_NAMES[one.region]} ({one.region.upper()})", fontsize=10)
        axes.set_xlabel(f"Dice of {first}", parse_math=False)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        if is_narrow or axes is panels[0]:
            axes.set_ylabel("Dice of the other")
        axes.grid(alpha=0.3)
    _add_legend(figure, panels[0].lines[1:], runs[1:], is_narrow)
    return figure


def _drawing(is_wide: bool, draw: Callable[..., Figure], *values: Any) -> Drawing:
    return draw_both(draw, *values) if is_wide else Drawing(figure=draw(*values, is_narrow=True))


def _styles(runs: Sequence[ComparedRun]) -> list[tuple[str, str, str]]:
    return [RUN_STYLES[number % len(RUN_STYLES)] for number in range(len(runs))]


def _add_legend(
    figure: Figure, lines: Sequence[Line2D], runs: Sequence[ComparedRun], is_narrow: bool
) -> None:
    names = [_wrapped(run.name) for run in runs]
    num_columns = 1 if is_narrow and max(map(len, names)) > _NAME_WIDTH // 3 else 3
    about: dict[str, Any] = {"loc": "outside upper center", "frameon": False, "fontsize": 9}
    legend = figure.legend(lines, names, ncols=min(num_columns, len(runs)), **about)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _wrapped(name: str) -> str:
    return textwrap.fill(name, _NAME_WIDTH)


def _score_table(runs: Sequence[ComparedRun], scores: Sequence[MetricComparison]) -> str:
    """A group of rows for each score, a row for each run."""
    first = runs[0].name
    groups = []
    for one in scores:
        label, digits = _METRICS[one.metric]
        count = count_of(one.num_cases, "case")
        region = f"{REGION_NAMES[one.region]} ({one.region.upper()})"
        rows = [f'<tr><th colspan="3" scope="rowgroup">{label}, {region}, {count}</th></tr>']
        for run, mean, difference in zip(runs, one.means, one.differences, strict=True):
            cells = [
                f"<td>{_cell(mean, digits)}</td>",
                f"<td>{'–' if run is runs[0] else _cell(difference, digits, signed=True)}</td>",
            ]
            rows.append(f'<tr><th scope="row">{escape(run.name)}</th>{"".join(cells)}</tr>')
        groups.append(f"<tbody>{''.join(rows)}</tbody>")
    note = (
        f"Means over the cases that all runs have scored, and differences from {first}, taken case "
        "by case. In brackets, 95 % bootstrap intervals over patients, none below five patients. "
        "Of Dice and NSD more is better, of HD95 less."
    )
    return _table("Scores", "groups", note, ["run", "mean", "difference"], "".join(groups))


def _difference_table(
    runs: Sequence[ComparedRun], differences: Sequence[tuple[str, Sequence[Any]]]
) -> str:
    if not differences:
        return "<section><h2>Settings</h2><p>No setting differs.</p></section>"
    rows = []
    for name, values in differences:
        cells = "".join(
            f'<td data-label="{escape(run.name)}"><span>{escape(json.dumps(value))}</span></td>'
            for run, value in zip(runs, values, strict=True)
        )
        rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    body = f"<tbody>{''.join(rows)}</tbody>"
    note = "What differs, as config.json has it; null means none."
    return _table(
        "Settings", "cards single wrapped", note, ["setting", *(run.name for run in runs)], body
    )


def _table(title: str, style: str, note: str, headings: Sequence[str], body: str) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in headings)
    anchor = title.lower()
    return (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(title)}</h2>'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{anchor}">'
        f'<table class="{style}"><caption>{escape(note)}</caption>'
        f"<thead><tr>{head}</tr></thead>{body}</table></div></section>"
    )


def _cell(value: Estimate, digits: int, *, signed: bool = False) -> str:
    """A mean, then its interval, which moves below it where there is no room."""
    mean, low, high = (
        shown_number(one, digits, signed=signed) for one in (value.mean, value.low, value.high)
    )
    return (
        mean if math.isnan(value.low) else f'{mean} <span class="interval">[{low}, {high}]</span>'
    )


def _shown(value: Estimate, digits: int, *, signed: bool = False) -> str:
    form = f"{'+' if signed else ''}z.{digits}f"  # z: no negative zero
    if math.isnan(value.low):
        return f"{value.mean:{form}}"
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"
