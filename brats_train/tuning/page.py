"""The page of a study: a summary, the best recipe, charts, and a table of all trials."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from brats_cache.common.progress import duration
from brats_train.report.html import assemble, asset
from brats_train.report.pictures import Caption, Drawing, draw_both, figure_html, picture_of
from brats_train.tuning import figures
from brats_train.tuning.study import BEST_EPOCH, REASON, RETRY_OF, Study, best_of, finished_trials

__all__ = ["importances_of", "make_page"]

_MIN_FOR_IMPORTANCES = 4  # complete trials
_CAPTIONS = {
    "history": Caption(
        "History",
        "The validation IoU of each trial. Hollow dots were pruned and show their last epoch.",
        is_wide=False,
    ),
    "curves": Caption(
        "Validation curves",
        "The validation IoU by epoch. Dotted curves were pruned where they end in a cross.",
        is_wide=False,
    ),
    "importances": Caption(
        "Importance",
        "How much each field decides whether a trial is among the better ones (PED-ANOVA, "
        "Watanabe et al. 2023); few trials tell little.",
        is_wide=True,
    ),
    "parallel": Caption(
        "Parallel coordinates",
        "A line is a complete trial, from its validation IoU through its parameters; the stronger "
        "its colour, the better, the best in orange.",
        is_wide=True,
    ),
}
_COLUMNS = ("trial", "state", "validation IoU", "best epoch", "epochs", "time")
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def make_page(study: Study, num_wanted: int, best_recipe: str) -> bytes:
    """Makes the page, one file that needs no other.

    Args:
        study: What to show.
        num_wanted: Finished trials that it should have in the end.
        best_recipe: The file of the best recipe, "" while there is none.
    """
    trials = study.trials()
    drawn = _draw(study, trials)
    recipe = f"<h2>Best recipe</h2><pre>{escape(best_recipe)}</pre>" if best_recipe else ""
    return assemble(
        "sections.html",
        style=asset("report.css").decode(),
        scripts=[asset("table.js").decode()],
        texts={
            "title": f"Study {study.optuna.study_name}",
            "summary": _summary(trials, num_wanted),
        },
        figures="".join(
            figure_html(_CAPTIONS[name], picture_of(one)) for name, one in drawn.items()
        ),
        sections=_table(study, trials) + recipe,
    )


def importances_of(study: Study) -> dict[str, float]:
    """The importance of each field; nothing where the trials are too few to tell."""
    values = [one.value for one in study.trials() if one.state == TrialState.COMPLETE]
    if len(values) < _MIN_FOR_IMPORTANCES or len(set(values)) == 1:
        return {}
    return get_param_importances(study.optuna, evaluator=PedAnovaImportanceEvaluator())


def _draw(study: Study, trials: Sequence[FrozenTrial]) -> dict[str, Drawing]:
    drawn: dict[str, Drawing] = {}
    has_complete = best_of(trials) is not None
    if has_complete:
        drawn["history"] = Drawing(figure=figures.draw_history(trials))
    if any(trial.intermediate_values for trial in trials):
        drawn["curves"] = Drawing(figure=figures.draw_curves(trials))
    if importances := importances_of(study):
        drawn["importances"] = draw_both(figures.draw_importances, importances)
    if has_complete:
        fields = study.space.distributions
        drawn["parallel"] = draw_both(figures.draw_parallel, trials, fields)
    return drawn


def _summary(trials: Sequence[FrozenTrial], num_wanted: int) -> str:
    finished, best = finished_trials(trials), best_of(trials)
    counts = [
        f"{count} {word}"
        for state, word in _STATES.items()
        if (count := sum(trial.state == state for trial in finished))
    ]
    text = f"{len(finished)} of {num_wanted} trials are finished"
    text += f" ({', '.join(counts)})." if counts else "."
    if best is not None:
        text += (
            f" The best is trial {best.number} with a validation IoU of {best.value:.4f}; it was "
            "chosen on the validation slices, so that its score there is too good."
        )
    return text


def _table(study: Study, trials: Sequence[FrozenTrial]) -> str:
    """The trials, the best first; one that was queued again is shown as the one it became."""
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    shown = [trial for trial in trials if trial.number not in retried]
    if not shown:
        return ""
    shown.sort(key=lambda one: (one.state != TrialState.COMPLETE, -(one.value or 0), one.number))
    fields = list(study.space.distributions)
    headings = [
        *(_heading(name, "text" if name == "state" else "number") for name in _COLUMNS),
        *(_heading(name, _kind(name, shown)) for name in fields),
    ]
    rows = [_row(trial, fields) for trial in shown]
    return (
        '<section aria-labelledby="trials"><h2 id="trials">Trials</h2>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="trials">'
        '<table class="cards single numbered">'
        "<caption>A heading sorts. The state of a failed trial tells the reason.</caption>"
        f"<thead><tr>{''.join(headings)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        "</section>"
    )


def _row(trial: FrozenTrial, fields: Sequence[str]) -> str:
    seconds = trial.duration.total_seconds() if trial.duration else None
    score = None if trial.value is None else round(trial.value, 4)
    best_epoch, num_epochs = trial.user_attrs.get(BEST_EPOCH), len(trial.intermediate_values)
    number, state, iou, best, epochs, time = _COLUMNS
    cells = [
        _cell(number, trial.number),
        _cell(state, _STATES[trial.state], trial.user_attrs.get(REASON, "")),
        _cell(iou, score),
        _cell(best, best_epoch),
        _cell(epochs, num_epochs),
        _cell(time, seconds, shown=duration(seconds) if seconds is not None else ""),
        *(_cell(name, trial.params.get(name)) for name in fields),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _kind(name: str, trials: Sequence[FrozenTrial]) -> str:
    values = [trial.params[name] for trial in trials if name in trial.params]
    return "text" if any(isinstance(value, str) for value in values) else "number"


def _heading(label: str, kind: str) -> str:
    """A heading that sorts; a name such as model.encoder may go on in the next line."""
    sort = "text" if kind == "text" else "less"
    text = escape(label).replace(".", ".<wbr>").replace("_", "_<wbr>")
    return (
        f'<th scope="col" data-kind="{sort}" aria-sort="none">'
        f'<button type="button">{text}</button></th>'
    )


def _cell(label: str, value: Any, note: str = "", *, shown: str = "") -> str:
    """A cell; its label stands before it on a phone, where a row is a card."""
    about = f'data-label="{escape(label)}"'
    if value is None:
        return f'<td {about} data-value="">–</td>'
    text = shown or (f"{value:.4g}" if isinstance(value, float) else str(value))
    more = f" <small>{escape(note)}</small>" if note else ""
    data = value if isinstance(value, str) else repr(float(value))
    return f'<td {about} data-value="{escape(str(data))}"><span>{escape(text)}{more}</span></td>'
