"""The report page: a summary, the figures, a table of cases, and a browser of slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from brats_train.evaluation.results import Results
from brats_train.report.case_entry import CaseEntry
from brats_train.report.display import MODALITY_NAMES
from brats_train.report.html import assemble, asset, data_uri, embedded_json
from brats_train.report.page_figures import RunFigure, figures_html
from brats_train.report.palette import REGION_NAMES, TISSUES, page_colors
from brats_train.report.paper import compare_with_paper

__all__ = ["make_page"]

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


def make_page(
    name: str,
    config: Mapping[str, Any],
    epochs: Sequence[Mapping[str, float]],
    best: int | None,
    results: Results | None,
    run_figures: Sequence[RunFigure],
    entries: Sequence[CaseEntry],
    tables: Mapping[str, bytes],
) -> bytes:
    """Makes report.html, one file that needs no other.

    Args:
        name: Name of the run.
        config: Its config.json.
        epochs: Rows of its metrics.csv.
        best: The epoch of best.pt, None for none.
        results: The evaluation, None without one.
        run_figures: Its figures.
        entries: The scored cases.
        tables: Content of the CSV files that can be saved from the page, by name.
    """
    regions = results.regions if results else ()
    modalities = entries[0].modalities if entries else ()
    # FLAIR shows the whole tumour best, so it comes first.
    modalities = tuple(sorted(modalities, key=lambda one: one != "flair"))
    browser = {
        "regions": regions,
        "modalities": modalities,
        "names": {one: MODALITY_NAMES.get(one, one) for one in modalities},
        "region_names": REGION_NAMES,
        "colors": page_colors(),
        "tissues": [_tissue(label) for label in (3, 1, 2)],  # the innermost first
        "cases": [
            {**entry.browser, "scores": _scores(results, entry.case)}
            for entry in entries
            if results
        ],
    }
    return assemble(
        "report.html",
        style=asset("report.css").decode(),
        scripts=[asset(f"{name}.js").decode() for name in ("table", "picture", "report")],
        texts={"title": f"Run {name}", "summary": _summary_text(config, epochs, best, results)},
        contents=_contents(results),
        paper=compare_with_paper(config, epochs, best) + figures_html(run_figures, of_paper=True),
        scores=_scores_section(run_figures) if results else "",
        labels=_labels(results.summary.get("classification")) if results else "",
        cases=_table(results, entries) if results else "",
        tables=_links_to(tables),
        data=embedded_json("data", browser),
    )


def _tissue(label: int) -> dict[str, str]:
    name, color = TISSUES[label]
    return {"name": name, "color": color}


def _summary_text(
    config: Mapping[str, Any],
    epochs: Sequence[Mapping[str, float]],
    best: int | None,
    results: Results | None,
) -> str:
    text = _told_scores(results) if results else ""
    recipe = config["recipe"]
    what = "the whole tumour" if recipe.get("target") == "wt" else "tumour regions (WT, TC, ET)"
    model = {"architecture": "Unet", "encoder": recipe.get("encoder"), **recipe.get("model", {})}
    text += f"A {model['architecture']} with the encoder {model['encoder']} was trained on {what}"
    if config.get("fold") == "all":
        text += " once for each fold of a cross-validation"
    if name := config.get("recipe_name"):
        text += f" with the recipe {name}"
    if (rows := config.get("num_train_rows")) is not None:
        text += f" from {rows} slices, {config.get('num_val_rows', 0)} more for validation"
    text += "."
    if epochs:
        text += f" It trained for {len(epochs)} epoch{'s' if len(epochs) > 1 else ''}; "
        text += f"the weights of epoch {best} were kept." if best else "none was kept."
    if results is None:
        text += " It has not been scored yet: brats eval --split val, then brats report."
    return text


def _told_scores(results: Results) -> str:
    """The scores in sentences, a space at the end."""
    summary = results.summary
    means = [
        f"{region.upper()} {_mean(summary['regions'][region]['dice'])}"
        for region in results.regions
    ]
    cases = "1 case" if len(results.cases) == 1 else f"{len(results.cases)} cases"
    text = (
        f"Mean Dice on {cases} of split {summary['split']}: {'; '.join(means)}. "
        "Cases are scored as volumes on the scans’ own grids. "
    )
    if "predictions" in summary:
        text += f"Shown are masks made elsewhere, in {summary['predictions']}. "
    told = [
        f"{_with_interval(one['rank_correlation'])}, off by "
        f"{_with_interval(one['mean_absolute_error'])} on average, for {region.upper()}"
        for region in results.regions
        if (one := summary["regions"][region].get("expected_dice"))
        and one["rank_correlation"]["low"] is not None  # a few cases tell nothing of it
    ]
    if told:
        text += f"The rank correlation of expected and true Dice is {'; '.join(told)}. "
    return text


def _mean(score: Mapping[str, Any]) -> str:
    if score["mean"] is None:
        return "undefined"
    if score.get("low") is None:
        return f"{score['mean']:.3f}"
    return f"{score['mean']:.3f} (95 % interval {score['low']:.3f} to {score['high']:.3f})"


def _contents(results: Results | None) -> str:
    """Links to the sections."""
    sections = {"paper": "What the paper shows"}
    if results:
        sections |= {"scores": "Scores", "cases": "Cases"}
    sections["files"] = "Files"
    links = "".join(f'<a href="#{name}">{text}</a>' for name, text in sections.items())
    return f'<nav aria-label="Sections">{links}</nav>'


def _scores_section(run_figures: Sequence[RunFigure]) -> str:
    figures = figures_html(run_figures, of_paper=False)
    return f'<section aria-labelledby="scores"><h2 id="scores">Scores</h2>{figures}</section>'


def _links_to(tables: Mapping[str, bytes]) -> str:
    """Links that save the tables, which the page holds."""
    return " ".join(
        f'<a download="{escape(name)}" href="{data_uri(content, "text/csv")}">{escape(name)}</a>'
        for name, content in tables.items()
    )


def _labels(scores: Mapping[str, Any] | None) -> str:
    """The labels of whole cases: scores in words, and the confusion matrix."""
    if not scores:
        return ""
    told = "; ".join(
        f"{label} {_with_interval(scores[key])}"
        for label, key in (
            ("accuracy", "accuracy"),
            ("balanced accuracy", "balanced_accuracy"),
            ("area under the ROC curve", "auc"),
        )
    )
    names = [escape(name) for name in scores["classes"]]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{count}</td>" for count in counts)}</tr>'
        for name, counts in zip(names, scores["confusion"], strict=True)
    )
    return (
        '<section aria-labelledby="labels"><h2 id="labels">Labels</h2>'
        f"<p>Of {scores['num_cases']} cases with a label: {told}.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="labels"><table>'
        "<caption>Cases by true label (rows) and predicted label (columns).</caption>"
        f'<thead><tr><th scope="col">true</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></section>"
    )


def _with_interval(score: Mapping[str, Any]) -> str:
    if score["value"] is None:
        return "undefined"
    if score["low"] is None:
        return f"{score['value']:.3f}"
    return f"{score['value']:.3f} (95 % interval {score['low']:.3f} to {score['high']:.3f})"


def _table(results: Results, entries: Sequence[CaseEntry]) -> str:
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
    return f'<td {about} data-value="{value!r}">{value:.{digits}f}</td>'


def _scores(results: Results, case: str) -> str:
    parts = []
    for region in results.regions:
        dice = results.values(region, "dice").get(case, math.nan)
        distance = results.values(region, "hd95").get(case, math.nan)
        if not math.isnan(dice):
            parts.append(f"{region.upper()}: Dice {dice:.3f}, HD95 {distance:.1f} mm")
    return "; ".join(parts)
