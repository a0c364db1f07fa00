"""Curves of a run, and the file of them that follows its training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from brats_train.training import curves_file
from brats_train.training.curves import best_epoch, draw_curves
from brats_train.training.curves_file import CurvesFile
from brats_train.training.metrics_file import METRIC_COLUMNS
from brats_train.training.rendering import render
from brats_train.training.run_dir import RunDir

NAN = math.nan


def epochs_of(num: int, **columns: float) -> list[dict[str, float]]:
    """Rows of metrics.csv that fall evenly, the named columns constant."""
    rows = [
        dict.fromkeys(METRIC_COLUMNS, 1 / number) | {"epoch": number}
        for number in range(1, num + 1)
    ]
    return [row | columns for row in rows]


def test_the_best_epoch_is_the_one_whose_weights_were_kept() -> None:
    rows = epochs_of(3)
    for row, loss, iou in zip(rows, (0.5, 0.3, 0.3), (0.6, 0.5, 0.7), strict=True):
        row |= {"val_iou_loss": loss, "val_iou": iou}
    assert best_epoch(rows, "iou_loss") == 2  # a later one must be better to be kept
    assert best_epoch(rows, "iou") == 3
    assert best_epoch(rows, "last") == 3
    unjudged = epochs_of(3, val_loss=NAN)
    unjudged[0]["train_loss"] = 0.1
    assert best_epoch(unjudged, "loss") == 3  # without validation the last weights
    assert best_epoch([], "loss") is None


@pytest.mark.parametrize("num", [1, 30])
@pytest.mark.parametrize("has_validation", [True, False])
def test_curves_show_quality_rate_and_time_and_mark_the_best_epoch(
    num: int, has_validation: bool
) -> None:
    gone = {} if has_validation else {name: NAN for name in METRIC_COLUMNS if name[:4] == "val_"}
    figure = draw_curves(epochs_of(num, **gone), best=num)
    render(figure, ("png",), 30)
    *four, rate, speed = figure.axes
    assert len(four) == 4
    for axes in four:
        *curves, mark = axes.lines
        assert len(curves) == 1 + has_validation
        assert list(mark.get_xdata()) == [num, num]
        assert all(len(curve.get_xdata()) == num for curve in curves)
        assert len({(curve.get_color(), curve.get_linestyle()) for curve in curves}) == len(curves)
    assert list(rate.lines[0].get_ydata()) == [1 / number for number in range(1, num + 1)]
    assert list(speed.lines[0].get_ydata()) == [1 / number for number in range(1, num + 1)]
    minutes = sum(1 / number for number in range(1, num + 1)) / 60
    assert speed.lines[0].get_xdata()[-1] == pytest.approx(minutes)
    pace = figure.legends[0].get_title().get_text()
    assert pace.startswith(f"{num} epoch")
    assert "slices/s" in pace


@pytest.mark.parametrize("value", [NAN, math.inf, -1.0, 1e308])
def test_a_spoilt_row_is_drawn_as_far_as_it_can_be(value: float) -> None:
    spoilt = epochs_of(3)
    spoilt[1] |= dict.fromkeys(METRIC_COLUMNS[1:], value)
    assert (
        draw_curves(spoilt, best=1).legends[0].get_title().get_text().startswith("3 epochs in 1 s")
    )


class Clock:
    """A clock that passes `step` seconds each time it is looked at."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 0.0

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


def test_the_file_follows_a_training_for_a_hundredth_of_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(curves_file, "time", clock)
    run, said = RunDir(tmp_path), []
    file = CurvesFile(run, "iou_loss", said.append)
    run.append_metrics(epochs_of(1)[0])
    clock.now = 29
    file.refresh()
    assert not run.figures.exists()  # a run of half a minute is drawn by brats report
    clock.now, clock.step = 31, 1  # drawing takes a second
    file.refresh()
    first = (run.figures / "curves.png").read_bytes()
    run.append_metrics(epochs_of(2)[1])
    clock.now, clock.step = 120, 0
    file.refresh()
    assert (run.figures / "curves.png").read_bytes() == first
    clock.now = 140
    file.refresh()
    assert (run.figures / "curves.png").read_bytes() != first
    (run.figures / "curves.png").unlink()
    (run.figures / "curves.png").mkdir()  # it cannot be replaced
    for clock.now in (1e5, 2e5):
        file.refresh()
    assert len(said) == 1
    assert "curves" in said[0]
