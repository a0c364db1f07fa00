"""The output of a search: lines that stay, and its status."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

__all__ = ["Screen"]

SECONDS_BETWEEN_LINES = 60.0


class Screen:
    """Lines, and a status: one line that changes on a terminal, elsewhere one now and then.

    Attributes:
        line: Takes a line that stays.
        status: Takes what is going on now.
    """

    def __init__(self, line: Callable[[str], None], status: Callable[[str], None]) -> None:
        self.line, self.status = line, status

    @classmethod
    @contextmanager
    def open(cls, log: Callable[[str], None]) -> Iterator[Screen]:
        """The screen while a search runs.

        Args:
            log: Takes lines of text for a person.
        """
        console = Console(stderr=True)
        if console.is_terminal and sys.stdout.isatty():
            with console.status(Text()) as shown:
                yield cls(log, lambda text: shown.update(Text(text)))
        else:
            yield cls(log, _now_and_then(log))


def _now_and_then(log: Callable[[str], None]) -> Callable[[str], None]:
    last = time.monotonic()

    def status(text: str) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log(text)

    return status
