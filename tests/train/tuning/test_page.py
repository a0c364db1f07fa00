"""The page of a study: whole in one file, and true to the trials at every stage of a study."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from brats_train.training.recipe import recipe_to_dict
from brats_train.tuning.figures import _axis, _ticks_between
from brats_train.tuning.page import importances_of, make_page
from brats_train.tuning.study import REASON, Study
from tests.browser import check_looks, open_browser
from tests.train.tuning.studies import BASE, finish, make_space, open_study

EVIL = "<img src=x onerror=alert(1)>"


def text_of(study: Study, num_wanted: int = 9) -> str:
    return make_page(study, num_wanted, "lr = 0.1\n").decode()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Six trials whose rate alone decides, one that failed, and one that was left and taken."""
    study = open_study(tmp_path)
    finish(study, lambda params: params["lr"] * 50, 6)
    with study.worker() as worker:
        trial = worker.claim(7)
        assert trial is not None
        trial.set_user_attr(REASON, EVIL)
        study.optuna.tell(trial, state=TrialState.FAIL)
    with study.worker() as worker:
        assert worker.claim(9) is not None
    study.queue_abandoned()
    return study


def test_a_study_without_trials_has_a_page(tmp_path: Path) -> None:
    """The recipe's own values are queued, where the space has them."""
    text = text_of(open_study(tmp_path))
    assert "0 of 9 trials are finished." in text
    assert "<figure" not in text
    assert "waiting" in text
    other = make_space(tmp_path, "lr = { low = 0.5, high = 0.9 }")
    settings = {"recipe": recipe_to_dict(BASE)}
    text = text_of(Study(tmp_path / "other", None, other, BASE, settings))
    assert "Trials" not in text


def test_the_page_needs_no_other_file_and_runs_no_text(study: Study) -> None:
    text = text_of(study)
    assert not re.search(r'(src|srcset|href)="(?!data:)', text)
    assert "default-src &#x27;none&#x27;" in text or "default-src 'none'" in text
    assert EVIL not in text
    assert "&lt;img src=x onerror" in text
    assert text.count("<figure") == 4


def test_a_trial_that_was_left_is_shown_once(study: Study) -> None:
    rows = re.search(r"<tbody>(.*?)</tbody>", text_of(study), re.DOTALL)
    assert rows is not None
    lines = rows[1].split("<tr>")[1:]
    assert len(lines) == 8
    assert "complete" in lines[0]
    assert sum("waiting" in line for line in lines) == 1
    best = max(trial.value or 0 for trial in study.trials())
    assert f">{round(best, 4):.4g}<" in lines[0]


def test_what_decides_is_the_most_important(study: Study) -> None:
    importances = importances_of(study)
    assert max(importances, key=lambda name: importances[name]) == "lr"


def test_equal_values_have_no_importances(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    finish(study, lambda params: 0.5, 5)
    assert importances_of(study) == {}
    assert text_of(study).count("<figure") == 3


def test_axes_end_at_the_ends_of_the_space() -> None:
    heights, marks = _axis([1e-4, 1e-2, 1e-3], FloatDistribution(1e-4, 1e-2, log=True))
    assert np.allclose(heights, [0, 1, 0.5])
    assert [text for _, text in marks] == ["0.0001", "0.001", "0.01"]
    assert np.allclose([height for height, _ in marks], [0, 0.5, 1])
    heights, marks = _axis(["b"], CategoricalDistribution(["a", "b", "c"]))
    assert (list(heights), [text for _, text in marks]) == ([0.5], ["a", "b", "c"])
    assert _axis(["a"], CategoricalDistribution(["a"]))[0] == [0]
    assert [text for _, text in _ticks_between(2, 4, is_log=False)][::2] == ["2", "3", "4"]


def test_in_a_browser_it_fits_phone_and_desk_and_is_sorted(study: Study) -> None:
    path = study.folder / "report.html"
    path.write_text(text_of(study))
    first = "document.querySelector('tbody tr').children[0].textContent"
    with open_browser() as page:
        for width, dark in ((1400, True), (390, False), (390, True)):
            check_looks(page, path.as_uri(), width, dark=dark)
        label = "getComputedStyle(document.querySelectorAll('tbody td')[2], '::before').content"
        assert page.run(label) == '"validation IoU"'
        shapes = page.run("[...document.images].map((one) => one.naturalHeight / one.naturalWidth)")
        assert shapes[-1] > 0.7, "parallel axes lie, one below the other"
        page.run("document.querySelector('thead button').click()")
        assert page.run(first) == "8"
        page.run("document.querySelector('thead button').click()")
        assert page.run(first) == "0"
        assert page.problems == []
        assert page.requests == [path.as_uri()]
