"""The training batches of one rank.

The order of an epoch is a pure function of (seed, epoch) over the rows of all caches, and each rank
takes its part of every global batch. So the state of the data path is three integers: seed, epoch
and step. Pixels come from a `Feeder` (see `feeders`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from brats_cache.common.errors import BratsError
from brats_train.data.feeders import Feeder
from brats_train.data.sampler import Sampler
from brats_train.runtime.distributed import World

__all__ = ["Batch", "Batches"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """This rank's part of one global batch.

    Its tensors may be overwritten once the next batch is requested.

    Attributes:
        images: (B, C, S, S) float16 on the device.
        masks: (B, 1, S, S) uint8 canonical labels on the device.
        step: Step of the epoch, from 0.
        global_size: Samples of the batch over all ranks.
        part: This rank's samples, as positions in the global batch.
        indices: (B,) int64, this rank's samples as positions in the selection of rows.
        weight: 1; 0 on a rank that has no sample of its own and computes another rank's.
    """

    images: Tensor
    masks: Tensor
    step: int
    global_size: int
    part: slice
    indices: np.ndarray
    weight: float = 1.0


class Batches:
    """The training batches of one rank."""

    def __init__(self, feeder: Feeder, sampler: Sampler, *, batch_size: int, world: World) -> None:
        """Prepares the epochs.

        Args:
            feeder: Brings the selected rows to the device.
            sampler: Decides which samples an epoch holds, and their order.
            batch_size: Samples of a step over all ranks, at least one for each rank.
            world: This process and its process group.

        Raises:
            BratsError: There are fewer samples than ranks.
        """
        num_samples = sampler.num_samples
        if num_samples < world.size:
            raise BratsError(
                f"{num_samples} training rows for {world.size} processes: expected one each at "
                "least."
            )
        self._feeder, self._sampler, self._world = feeder, sampler, world
        self._num_samples, self._batch_size = num_samples, max(batch_size, world.size)

    @property
    def num_steps(self) -> int:
        """Steps of an epoch, including a smaller last batch."""
        return -(-self._num_samples // self._batch_size)

    def num_samples_in(self, num_steps: int) -> int:
        """Samples of the first `num_steps` steps of an epoch, over all ranks."""
        return min(self._num_samples, num_steps * self._batch_size)

    @property
    def waited_seconds(self) -> float:
        """Seconds that the caller has waited for data since `epoch` was called."""
        return self._feeder.waited_seconds

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yields the batches of an epoch in order, from step `first_step` on."""
        steps = range(first_step, self.num_steps)
        order = self._sampler.order(epoch)
        indices = [self._indices(order, step) for step in steps]
        pixels = self._feeder.feed(indices)
        with contextlib.closing(pixels):  # type: ignore[type-var]
            for step, mine, (images, masks) in zip(steps, indices, pixels, strict=True):
                global_size = min(self._batch_size, self._num_samples - step * self._batch_size)
                part, weight = self._part(global_size)
                yield Batch(
                    images=images,
                    masks=masks,
                    step=step,
                    global_size=global_size,
                    part=part,
                    indices=mine,
                    weight=weight,
                )

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """This rank's samples of one step, (B,) int64 positions in the selection of rows."""
        return self._indices(self._sampler.order(epoch), step)

    def _indices(self, order: np.ndarray, step: int) -> np.ndarray:
        chunk = order[step * self._batch_size : (step + 1) * self._batch_size]
        return chunk[self._part(len(chunk))[0]]

    def _part(self, global_size: int) -> tuple[slice, float]:
        """This rank's samples of a batch and their weight.

        A batch can hold fewer samples than there are ranks. A rank without a sample of its own
        computes the first one with weight 0, because all ranks take part in the all-reduce.
        """
        part = self._world.local_slice(global_size)
        return (part, 1.0) if part.stop > part.start else (slice(0, 1), 0.0)
