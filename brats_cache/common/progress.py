"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["show_progress"]

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def show_progress(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows progress on standard error.

    Args:
        label: What is done, such as "Writing".
        unit: What is counted, such as "rows".

    Yields:
        A function to call with the number done and of all.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, label, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(console: Console, label: str, unit: str) -> Callable[[int, int], None]:
    """Reports progress by plain lines."""
    start = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        line = f"{label}: {done} of {total} {unit}, {now - start:.1f} s"
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    return report
