"""The page that compares runs: what differs, curves, scores with paired differences."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brats_train.evaluation.comparison import Estimate, MetricComparison
from brats_train.report.figures import RUN_STYLES
from brats_train.report.html import assemble, asset, data_uri
from brats_train.training.rendering import render

__all__ = ["ComparedRun", "as_text", "draw_cases", "draw_validation", "make_page"]

_METRICS = {"dice": ("Dice", 3), "nsd": ("NSD 1 mm", 3), "hd95": ("HD95 mm", 1)}


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
    figures = []
    if any(run.epochs for run in runs):
        text = "Mean slice IoU on the validation slices, by epoch."
        figures.append(_figure("Validation", text, draw_validation(runs)))
    dice = [one for one in scores if one.metric == "dice"]
    if dice:
        text = f"A dot is a case: Dice against that of {runs[0].name}. Above the line it is better."
        figures.append(_figure("Case by case", text, draw_cases(runs, dice)))
    return assemble(
        "sections.html",
        style=asset("report.css").decode(),
        scripts=[],
        texts={"title": " against ".join(run.name for run in runs), "summary": summary},
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


def draw_validation(runs: Sequence[ComparedRun]) -> Figure:
    """Draws the validation IoU of each run by epoch."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for run, (color, mark, line) in zip(runs, _styles(runs), strict=True):
        axes.plot(
            [row["epoch"] for row in run.epochs],
            [row.get("val_iou", math.nan) for row in run.epochs],
            line,
            color=color,
            marker=mark,
            markersize=4,
            label=run.name,
        )
    axes.set(xlabel="epoch", ylabel="validation slice IoU")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def draw_cases(runs: Sequence[ComparedRun], scores: Sequence[MetricComparison]) -> Figure:
    """Draws Dice of each case against that of the first run, a panel a region."""
    figure = Figure(figsize=(4.2 * len(scores), 4.4), layout="constrained")
    for axes, one in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores, strict=True):
        axes.plot((0, 1), (0, 1), color="0.35", linewidth=1)
        for run, values, (color, mark, _) in zip(
            runs[1:], one.values[1:], _styles(runs)[1:], strict=True
        ):
            axes.plot(one.values[0], values, mark, color=color, alpha=0.8, label=run.name)
        axes.set(
            xlabel=f"Dice {one.region.upper()}, {runs[0].name}",
            ylabel="the other",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            aspect="equal",
        )
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False, loc="upper left")
    return figure


def _styles(runs: Sequence[ComparedRun]) -> list[tuple[str, str, str]]:
    return [RUN_STYLES[number % len(RUN_STYLES)] for number in range(len(runs))]


def _figure(heading: str, text: str, figure: Figure) -> str:
    uri = data_uri(render(figure)["svg"], "image/svg+xml")
    return (
        f'<figure class="wide"><h2>{escape(heading)}</h2>'
        f'<div class="pan" tabindex="0" role="group" aria-label="{escape(heading)}">'
        f'<img src="{escape(uri)}" alt="{escape(heading)}: {escape(text)}"></div>'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def _score_table(runs: Sequence[ComparedRun], scores: Sequence[MetricComparison]) -> str:
    rows = []
    for one in scores:
        label, digits = _METRICS[one.metric]
        cells = []
        for number, (mean, difference) in enumerate(zip(one.means, one.differences, strict=True)):
            cells.append(_shown(mean, digits))
            if number:
                cells.append(_shown(difference, digits, signed=True))
        rows.append([f"{one.region.upper()} {label}", str(one.num_cases), *cells])
    headings = ["score", "cases", runs[0].name]
    for run in runs[1:]:
        headings += [run.name, f"minus {runs[0].name}"]
    note = (
        "Means over the cases that all have scored. Differences are taken case by case; intervals "
        "are 95 % bootstrap intervals over patients, none below five patients."
    )
    return _table("Scores", note, headings, rows)


def _difference_table(
    runs: Sequence[ComparedRun], differences: Sequence[tuple[str, Sequence[Any]]]
) -> str:
    headings = ["setting", *(run.name for run in runs)]
    rows = [[name, *map(json.dumps, values)] for name, values in differences]
    note = "Everything in config.json that differs." if rows else "No setting differs."
    return _table("Settings", note, headings, rows)


def _table(title: str, note: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in headings)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    anchor = title.lower()
    return (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(title)}</h2>'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{anchor}"><table>'
        f"<caption>{escape(note)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _shown(value: Estimate, digits: int, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    text = f"{value.mean:{sign}.{digits}f}"
    if math.isnan(value.low):
        return text
    return f"{text} [{value.low:{sign}.{digits}f}, {value.high:{sign}.{digits}f}]"
