"""Seconds that a device takes for a part of its work, measured without waiting for it."""

from __future__ import annotations

import time

import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Measures from its creation to `stop`: on a GPU by CUDA events, else by the clock."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._started, self._stopped = self._mark(), self._mark()

    def stop(self) -> None:
        """Marks the end of what is measured."""
        self._stopped = self._mark()

    def seconds(self) -> float:
        """Seconds between the two; on a GPU to be called once the host has waited for `stop`."""
        started, stopped = self._started, self._stopped
        if isinstance(started, float) and isinstance(stopped, float):
            return stopped - started
        assert isinstance(started, torch.cuda.Event)
        assert isinstance(stopped, torch.cuda.Event)
        return started.elapsed_time(stopped) / 1000

    def _mark(self) -> float | torch.cuda.Event:
        if not self._is_cuda:
            return time.monotonic()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
