"""The report page: a summary, the figures, a table of cases, and a browser of slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from brats_cache.common.text import count_of
from brats_train.evaluation.results import Results
from brats_train.report.case_entry import CaseEntry
from brats_train.report.cases_table import cases_table
from brats_train.report.display import MODALITY_NAMES
from brats_train.report.html import assemble, asset, data_uri, embedded_json, shown_number
from brats_train.report.page_figures import RunFigure, figures_html
from brats_train.report.palette import REGION_NAMES, TISSUES, page_colors
from brats_train.report.paper import compare_with_paper

__all__ = ["make_page"]

_SPLITS = {"train": "training", "val": "validation"}


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
    every = dict.fromkeys(name for entry in entries for name in entry.modalities)
    # FLAIR shows the whole tumour best, so it comes first.
    modalities = tuple(sorted(every, key=lambda one: one != "flair"))
    scores = _scores_by_case(results) if results else {}
    browser = {
        "regions": regions,
        "modalities": modalities,
        "names": {one: MODALITY_NAMES.get(one, one) for one in modalities},
        "region_names": REGION_NAMES,
        "colors": page_colors(),
        "tissues": [_tissue(label) for label in (3, 1, 2)],  # the innermost first
        "cases": [
            {**entry.browser, "scores": scores.get(entry.case, "")} for entry in entries if results
        ],
    }
    return assemble(
        "report.html",
        style=asset("report.css").decode(),
        scripts=[asset(f"{name}.js").decode() for name in ("table", "picture", "report")],
        texts={"title": f"Run {name}", "summary": _summary_text(config, epochs, best, results)},
        contents=_contents(results),
        paper=compare_with_paper(config, epochs, best) + figures_html(run_figures, of_paper=True),
        scores=_scores_section(results, run_figures) if results else "",
        labels=_labels(results.summary.get("classification")) if results else "",
        cases=cases_table(results, entries) if results else "",
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
    text = _scores_in_words(results) if results else ""
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
        text += f" It trained for {count_of(len(epochs), 'epoch')}; "
        text += f"the weights of epoch {best} were kept." if best else "none was kept."
    if results is None:
        text += " It has not been scored yet: brats eval --split val, then brats report."
    return text


def _scores_in_words(results: Results) -> str:
    """The scores in sentences, a space at the end."""
    summary = results.summary
    means = [
        f"{_full_name(region)} {_with_interval(summary['regions'][region]['dice'], 'mean')}"
        for region in results.regions
    ]
    split = _SPLITS.get(summary["split"], summary["split"])
    cases = count_of(len(results.cases), f"{split} case")
    text = (
        f"Mean Dice on {cases}: {'; '.join(means)}. "
        "Cases are scored as volumes on the scans’ own grids. "
    )
    if "predictions" in summary:
        text += f"Shown are masks made elsewhere, in {summary['predictions']}. "
    return text


def _full_name(region: str) -> str:
    return f"{REGION_NAMES[region]} ({region.upper()})"


def _contents(results: Results | None) -> str:
    """Links to the sections."""
    sections = {"paper": "What the paper shows"}
    if results:
        sections |= {"scores": "Scores", "cases": "Cases"}
    sections["files"] = "Files"
    links = "".join(f'<a href="#{name}">{text}</a>' for name, text in sections.items())
    return f'<nav aria-label="Sections">{links}</nav>'


def _scores_section(results: Results, run_figures: Sequence[RunFigure]) -> str:
    figures = figures_html(run_figures, of_paper=False)
    return (
        '<section aria-labelledby="scores"><h2 id="scores">Scores</h2>'
        f"{figures}{_expectation(results)}</section>"
    )


def _expectation(results: Results) -> str:
    """How far the Dice that masks were expected to have can be trusted, as HTML."""
    told = "".join(
        f"<li>{escape(_full_name(region))}: rank correlation "
        f"{_with_interval(one['rank_correlation'])}, off by "
        f"{_with_interval(one['mean_absolute_error'])} on average</li>"
        for region in results.regions
        if (one := results.summary["regions"][region].get("expected_dice"))
        and one["rank_correlation"]["low"] is not None  # a few cases tell nothing of it
    )
    if not told:
        return ""
    return (
        "<h3>Expected Dice</h3><p>What the model expects of a mask without knowing the truth, "
        f"against the Dice that the mask has:</p><ul>{told}</ul>"
    )


def _links_to(tables: Mapping[str, bytes]) -> str:
    """Links that save the tables, which the page holds."""
    return ", ".join(
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


def _with_interval(score: Mapping[str, Any], key: str = "value") -> str:
    if score[key] is None:
        return "undefined"
    value = shown_number(score[key], 3)
    if score.get("low") is None:
        return value
    low, high = shown_number(score["low"], 3), shown_number(score["high"], 3)
    return f"{value} (95 % interval {low} to {high})"


def _scores_by_case(results: Results) -> dict[str, str]:
    """The line of scores that stands at the slices of each case."""
    parts: dict[str, list[str]] = {}
    for region in results.regions:
        distances = results.values(region, "hd95")
        for case, dice in results.values(region, "dice").items():
            if not math.isnan(dice):
                text = f"{region.upper()}: Dice {dice:.3f}, HD95 {distances[case]:.1f} mm"
                parts.setdefault(case, []).append(text)
    return {case: "; ".join(texts) for case, texts in parts.items()}
