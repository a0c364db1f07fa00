"""The file figures/curves.png, which follows a training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from brats_cache.common.errors import BratsError
from brats_cache.common.files import write_atomically
from brats_train.training.run_dir import RunDir

__all__ = ["CurvesFile"]

FIRST_SECONDS = 30.0  # shorter runs are drawn by brats report alone
MAX_SHARE = 0.01  # of a run's time


class CurvesFile:
    """figures/curves.png of a run that is training.

    It is drawn after the first epoch that ends half a minute into the training, and then as often
    as takes a hundredth of the time.
    """

    def __init__(self, run: RunDir, best_by: str, log: Callable[[str], object]) -> None:
        """Draws `run`, whose best epoch is that of `best_by`; `log` takes a line if it cannot."""
        self._run, self._best_by, self._log = run, best_by, log
        self._due = time.monotonic() + FIRST_SECONDS

    def refresh(self) -> None:
        """Draws the file again if it is time to; one that cannot be written stops no training."""
        started = time.monotonic()
        if started < self._due:
            return
        # A third of a second that short runs do not spend.
        from brats_train.training.curves import best_epoch, draw_curves
        from brats_train.training.rendering import render

        epochs = self._run.read_metrics()
        files = render(draw_curves(epochs, best_epoch(epochs, self._best_by)), ("png",))
        try:
            self._run.figures.mkdir(exist_ok=True)
            write_atomically(self._run.figures / "curves.png", files["png"])
        except (BratsError, OSError) as error:
            self._log(f"Warning: the curves are not drawn: {error}")
            self._due = math.inf
            return
        ended = time.monotonic()
        self._due = ended + (ended - started) / MAX_SHARE
