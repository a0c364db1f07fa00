"""last.pt and best.pt of a run: what goes into them, when last.pt is due, and resuming from it.

The format of a checkpoint is in `models.checkpoint`, the thread that writes in `checkpoint_writer`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from brats_cache.common.errors import BratsError, CheckpointError
from brats_train.models import checkpoint
from brats_train.runtime.distributed import World
from brats_train.training.checkpoint_writer import CheckpointWriter
from brats_train.training.run_dir import RunDir
from brats_train.training.state import Progress
from brats_train.training.train_step import TrainStep

__all__ = ["RunCheckpoints"]


class RunCheckpoints:
    """The checkpoints of a run that is training, as one rank takes part in them."""

    _writer: CheckpointWriter

    def __init__(
        self, run: RunDir, world: World, train_step: TrainStep, *, save_minutes: float
    ) -> None:
        """Reads and writes nothing yet.

        Args:
            run: Where the files are.
            world: This process among its peers; the main rank writes.
            train_step: Model, optimizer and all else that is saved.
            save_minutes: Between two writings of last.pt.
        """
        self._run, self._world, self._train_step = run, world, train_step
        self._save_seconds = 60 * save_minutes
        self._saved = time.monotonic()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A context to save in; at its end everything is on the disk.

        Raises:
            BratsError: The disk failed. The files are as they were before.
        """
        with CheckpointWriter() as self._writer:
            yield

    @property
    def is_due(self) -> bool:
        """Whether last.pt is to be written again, by the clock of this rank."""
        return time.monotonic() - self._saved > self._save_seconds

    def save_last(self, progress: Progress, seconds: float) -> None:
        """Writes last.pt, everything that resuming needs; every rank takes part.

        Args:
            progress: Where the run stands.
            seconds: Spent by this process.
        """
        self._saved = time.monotonic()
        position = progress.pack(self._world, seconds)
        if self._world.is_main:
            content = checkpoint.pack(
                self._train_step.segmenter,
                self._train_step.model.state_dict(),
                **self._train_step.state_dict(),
                position=position,
            )
            self._writer.submit(self._run.last, content)

    def save_best(self, progress: Progress) -> None:
        """Writes best.pt, the model as it is validated, as that of `progress.best_epoch`."""
        if self._world.is_main:
            content = checkpoint.pack(
                self._train_step.segmenter,
                self._train_step.eval_model.state_dict(),
                epoch=progress.best_epoch + 1,
            )
            self._writer.submit(self._run.best, content)

    def load_last(self, num_steps: int, epochs: int) -> Progress:
        """Reads last.pt: model and optimizer go on from there; every rank takes part.

        Args:
            num_steps: Steps of an epoch.
            epochs: Epochs of the run as it was begun.

        Returns:
            Where the run stood.

        Raises:
            CheckpointError: The file is damaged, or does not fit this run.
            BratsError: The ranks do not see the same file.
        """
        path = self._run.last
        content = checkpoint.load(path)
        try:
            self._train_step.load_state_dict(content)
            progress = Progress.unpack(content["position"], self._world, num_steps, epochs)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: does not fit this run ({error}).") from error
        loaded = (progress.epoch, progress.step, self._train_step.checksum())
        if len(set(self._world.all_gather(loaded))) > 1:
            raise BratsError(
                f"{path}: the processes read different states of it. Is it on a disk that "
                "all of them share?"
            )
        return progress
