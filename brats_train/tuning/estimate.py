"""How long a study will still take."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["seconds_left"]


def seconds_left(
    durations: Sequence[float],
    num_left: int,
    num_running: int,
    *,
    elapsed: float = 0.0,
    share_done: float = 0.0,
) -> float | None:
    """Estimates the time until all trials are finished.

    Args:
        durations: Seconds of the finished trials.
        num_left: Trials that are not finished, running ones included.
        num_running: Of them run at once.
        elapsed: Seconds of this process's trial.
        share_done: Of its epochs.

    Returns:
        Seconds, None where nothing is known yet.

    >>> seconds_left([60, 120], num_left=4, num_running=2, elapsed=30)
    165.0
    """
    if num_left <= 0:
        return 0.0
    if durations:
        each = sum(durations) / len(durations)
    elif share_done > 0:
        each = elapsed / share_done
    else:
        return None
    return max(0.0, num_left * each - elapsed) / max(1, num_running)
