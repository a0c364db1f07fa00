"""The table of cases on the report page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from brats_train.evaluation.results import Results
from brats_train.report.case_entry import CaseEntry
from brats_train.report.html import shown_number

__all__ = ["cases_table"]

# Heading, score, digits, and whether more or less of it is better.
_DICE, _HD95 = ("Dice", "dice", 3, "more"), ("HD95 mm", "hd95", 1, "less")
_EXPECTED = ("expected Dice", "expected_dice", 3, "more")
_COLUMNS_OF_ONE = (
    _DICE,
    _EXPECTED,
    ("sensitivity", "sensitivity", 3, "more"),
    ("precision", "precision", 3, "more"),
    _HD95,
    ("NSD 1 mm", "nsd", 3, "more"),
    ("difference ml", "volume_difference_ml", 1, "more"),
)
_COLUMNS_OF_SEVERAL = (_DICE, _EXPECTED, _HD95)


def cases_table(results: Results, entries: Sequence[CaseEntry]) -> str:
    """Makes the section of the cases: a table that sorts, and what its columns mean, as HTML.

    Args:
        results: The scores.
        entries: The cases, in the order of the page's data.
    """
    several = len(results.regions) > 1
    columns = [
        (region, *column)
        for region in results.regions
        for column in (_COLUMNS_OF_SEVERAL if several else _COLUMNS_OF_ONE)
        if column != _EXPECTED or "expected_dice" in results.summary["regions"][region]
    ]
    main = results.regions[0]
    labels = [f"{column[0].upper()} {column[1]}" if several else column[1] for column in columns]
    headings = [_heading("case", "text")]
    headings += [_heading(label, column[-1]) for column, label in zip(columns, labels, strict=True)]
    headings.append(_heading(f"true {main.upper()} ml", "more"))
    scores = {(region, name): results.values(region, name) for region, _, name, _, _ in columns}
    voxels = results.values(main, "true_voxels")
    lines = []
    for number, entry in enumerate(entries):
        cells = [
            _cell(scores[region, name].get(entry.case, math.nan), digits, label)
            for (region, _, name, digits, _), label in zip(columns, labels, strict=True)
        ]
        volume = voxels.get(entry.case, math.nan) * entry.ml_per_voxel
        cells.append(_cell(volume, 1, f"true {main.upper()} ml"))
        button = f'<button type="button" class="case" data-number="{number}">{escape(entry.case)}'
        first = f'<td data-value="{escape(entry.case)}">{button}</button></td>'
        lines.append(f"<tr>{first}{''.join(cells)}</tr>")
    shown = dict.fromkeys(name for _, _, name, _, _ in columns)
    definitions = results.summary.get("definitions", {})
    meanings = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(definitions[name]))}</dd>"
        for name in shown
        if name in definitions
    )
    return (
        '<section aria-labelledby="cases"><h2 id="cases">Cases</h2>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="cases">'
        '<table class="cards">'
        "<caption>A heading sorts, worst first; a case opens its slices.</caption>"
        f"<thead><tr>{''.join(headings)}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f"<details><summary>What the columns mean</summary><dl>{meanings}</dl></details></section>"
    )


def _heading(label: str, kind: str) -> str:
    return (
        f'<th scope="col" data-kind="{kind}" aria-sort="none">'
        f'<button type="button">{escape(label)}</button></th>'
    )


def _cell(value: float, digits: int, label: str) -> str:
    """A cell; its label stands before it on a phone, where a row is a card."""
    about = f'data-label="{escape(label)}"'
    if math.isnan(value):
        return f'<td {about} data-value="">–</td>'
    return f'<td {about} data-value="{value!r}">{shown_number(value, digits)}</td>'
