"""Progress is whole lines where there is no terminal, few of them, and fits 80 columns on one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from brats_cache.common import progress
from brats_cache.common.progress import LineTimer, duration, show_progress, show_status

WORK = """
import sys, time
from brats_cache.common.progress import show_progress, show_status
with show_progress("Choosing", "cases") as report:
    for done in range(56):
        report(done, 55)
with show_status() as update:
    for step in range(5):
        if update:
            update(f"epoch 100/100  step {step}/1300  loss 0.1234", step / 5)
        print("epoch ended", flush=True)
        time.sleep(0.05)
"""


class Clock:
    """Stands in for the module `time`."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_lines_say_how_many_there_are_and_what_is_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with show_progress("Scoring", "cases") as report:
        for done in range(11):
            report(done, 10)
            clock.now += 4
    told = capsys.readouterr().err
    assert "\r" not in told
    assert told.splitlines() == [
        "Scoring: 10 cases",
        "Scoring: 3 of 10 cases, 12.0 s, about 28 s left",
        "Scoring: 6 of 10 cases, 24.0 s, about 16 s left",
        "Scoring: 9 of 10 cases, 36.0 s, about 4 s left",
        "Scoring: 10 of 10 cases, 40.0 s",
    ]


def test_a_part_of_one_is_told_and_nothing_goes_back(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with show_progress("Scoring", "cases") as report:
        for done in (0, 0, 0.25, 0.5, 0, 1):
            report(done, 1)
            clock.now += 10
    assert capsys.readouterr().err.splitlines() == [
        "Scoring: 1 cases",
        "Scoring: 0.25 of 1 cases, 20.0 s, about 1:00 min left",
        "Scoring: 0.50 of 1 cases, 30.0 s, about 30 s left",
        "Scoring: 1 of 1 cases, 50.0 s",
    ]


def test_the_longer_the_work_the_fewer_the_lines(clock: Clock) -> None:
    timer, hours = LineTimer(), []
    for second in range(24 * 3600):
        clock.now = float(second)
        if timer.is_due():
            timer.printed()
            hours.append(second // 3600)
    assert len(hours) < 100
    assert hours.count(0) > hours.count(1) > 0


def test_a_rank_that_does_not_print_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("Scoring", "cases", is_shown=False) as report:
        report(1, 2)
    with show_status(is_shown=False) as update:
        assert update is None
    assert capsys.readouterr() == ("", "")


def test_elsewhere_than_on_a_terminal_there_is_no_carriage_return() -> None:
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, check=True)
    assert done.stderr.splitlines()[0] == b"Choosing: 55 cases"
    assert b"\r" not in done.stderr + done.stdout
    assert b"\x1b" not in done.stderr + done.stdout
    assert done.stdout == b"epoch ended\n" * 5


def test_a_terminal_of_80_columns_will_do() -> None:
    """What is printed to a file meanwhile goes to that file, and no line is wrapped."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", WORK], stdout=subprocess.PIPE, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        assert process.stdout is not None
        assert process.stdout.read() == b"epoch ended\n" * 5
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    lines = re.split(r"[\r\n]+", plain)
    assert max(map(len, lines)) <= 80
    assert any("step 4/1300  loss 0.1234" in line for line in lines)
    assert any("55/55 cases" in line for line in lines)


def test_spans_of_time_are_short() -> None:
    spans = [duration(seconds) for seconds in (0, 59.4, 59.6, 3599, 3600, 360000)]
    assert spans == ["0 s", "59 s", "1:00 min", "59:59 min", "1:00 h", "100:00 h"]
