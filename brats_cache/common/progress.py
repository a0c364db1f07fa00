"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere.

Everything goes to standard error and fits into 80 columns. Elsewhere than on a terminal there are
whole lines alone, the fewer the longer the work lasts, so that a log of a night stays short.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

__all__ = ["LineTimer", "duration", "show_progress", "show_status"]

SECONDS_BETWEEN_LINES = 10.0
SHARE_BETWEEN_LINES = 0.1  # of the time since the start: 50 lines an hour, 70 a day
Report = Callable[[float, int], None]


class LineTimer:
    """Says when the next line is due."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def is_due(self) -> bool:
        """Whether it is time for a line."""
        between = max(SECONDS_BETWEEN_LINES, SHARE_BETWEEN_LINES * self.elapsed)
        return time.monotonic() - self._last >= between

    def printed(self) -> None:
        """Says that a line was printed."""
        self._last = time.monotonic()


@contextmanager
def show_progress(label: str, unit: str, *, is_shown: bool = True) -> Iterator[Report]:
    """Shows progress on standard error.

    Args:
        label: What is done, such as "Writing".
        unit: What is counted, such as "rows".
        is_shown: False for a rank that does not print.

    Yields:
        A function to call with the number done and of all; with none done at the start, where all
        are known then. A part of one may be done; calls that go back are passed over.
    """
    if not is_shown:
        yield lambda done, total: None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _forward(_lines(console, label, unit))
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn(unit),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(label, total=None)
        yield _forward(lambda done, total: bar.update(task, completed=done, total=total))


def _forward(report: Report) -> Report:
    """Passes on what is not behind an earlier call: a whole one can be told after a part of one."""
    furthest = -1.0

    def passed(done: float, total: int) -> None:
        nonlocal furthest
        if done > furthest:
            furthest = done
            report(done, total)

    return passed


@contextmanager
def show_status(*, is_shown: bool = True) -> Iterator[Callable[[str, float], None] | None]:
    """Shows a line that changes, with a bar, on a terminal.

    Lines that are printed meanwhile stand above it.

    Args:
        is_shown: False for a rank that does not print.

    Yields:
        A function to call with the text, 60 columns at most, and the share that is done; None where
        there is no terminal.
    """
    console = Console(stderr=True)
    if not is_shown or not console.is_terminal:
        yield None
        return
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
    columns = (text, BarColumn(bar_width=None))
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda text, share: bar.update(task, description=text, completed=share)


def duration(seconds: float) -> str:
    """A span of time as a person reads it.

    >>> duration(7.4), duration(75), duration(7325)
    ('7 s', '1:15 min', '2:02 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def _lines(console: Console, label: str, unit: str) -> Report:
    """Reports progress by plain lines."""
    timer = LineTimer()

    def report(done: float, total: int) -> None:
        if 0 < done < total and not timer.is_due():
            return
        timer.printed()
        shown = f"{done:.2f}" if done % 1 else f"{done:.0f}"
        line = f"{label}: {shown} of {total} {unit}, {timer.elapsed:.1f} s"
        if 0 < done < total:
            line += f", about {duration(timer.elapsed * (total - done) / done)} left"
        elif not done:
            line = f"{label}: {total} {unit}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    return report
