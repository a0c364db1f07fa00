"""SIGINT (Ctrl-C) and SIGTERM (a cluster's warning) as a flag that training reads after a step.

The first signal asks the run to save a checkpoint and exit; a second one ends the process at once.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

__all__ = ["InterruptHandler"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptHandler:
    """A context in which SIGINT and SIGTERM set `requested` instead of ending the process.

    Attributes:
        requested: Whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> InterruptHandler:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
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
