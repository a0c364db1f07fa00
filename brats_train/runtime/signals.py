"""Ctrl-C and the cluster's warning, heard between two steps.

The first signal asks the run to save and leave; a second one leaves at once.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

__all__ = ["InterruptHandler"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptHandler:
    """A context in which SIGINT and SIGTERM set `requested` instead of ending the process."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> InterruptHandler:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._hear)
        return self

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
