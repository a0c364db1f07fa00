"""Batches from memory maps: a thread gathers rows into a ring of buffers while the device computes.

The order of an epoch is a pure function of (seed, epoch) over the rows of all caches, and each rank
takes its part of every global batch, so the state of the data path is three integers: seed, epoch
and step. Where the rows fit on the device with room to spare they are kept there instead.
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
    """This rank's part of one global batch. Its tensors may be overwritten once the next is asked
    for.

    images        (B, C, S, S) float16 on the device
    masks         (B, 1, S, S) uint8 canonical labels on the device
    step          number of the step in its epoch
    global_size   samples of the batch over all ranks
    part          this rank's samples among them
    weight        0 where a rank has no sample of its own and computes another's, else 1
    """

    images: Tensor
    masks: Tensor
    step: int
    global_size: int
    part: slice
    weight: float = 1.0


class Batches:
    """The training batches of one rank."""

    def __init__(self, feeder: Feeder, sampler: Sampler, *, batch_size: int, world: World) -> None:
        """`batch_size` counts the samples of all ranks. Raises `BratsError` for fewer samples than
        ranks."""
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
        """Steps of an epoch, a last and smaller batch included."""
        return -(-self._num_samples // self._batch_size)

    def num_samples_in(self, num_steps: int) -> int:
        """Samples of the first `num_steps` steps of an epoch, over all ranks."""
        return min(self._num_samples, num_steps * self._batch_size)

    @property
    def waited_seconds(self) -> float:
        """What the caller has spent waiting for data since `epoch` was called."""
        return self._feeder.waited_seconds

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step `first_step` on, in order."""
        steps = range(first_step, self.num_steps)
        order = self._sampler.order(epoch)
        pixels = self._feeder.feed([self._indices(order, step) for step in steps])
        with contextlib.closing(pixels):  # type: ignore[type-var]
            for step, (images, masks) in zip(steps, pixels, strict=True):
                global_size = min(self._batch_size, self._num_samples - step * self._batch_size)
                part, weight = self._part(global_size)
                yield Batch(
                    images=images,
                    masks=masks,
                    step=step,
                    global_size=global_size,
                    part=part,
                    weight=weight,
                )

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """(B,) int64, this rank's samples of one step as positions among the training rows."""
        return self._indices(self._sampler.order(epoch), step)

    def _indices(self, order: np.ndarray, step: int) -> np.ndarray:
        chunk = order[step * self._batch_size : (step + 1) * self._batch_size]
        return chunk[self._part(len(chunk))[0]]

    def _part(self, global_size: int) -> tuple[slice, float]:
        """This rank's samples of a batch and their weight.

        A batch can be smaller than the world. A rank without a sample of its own computes the first
        one with weight 0, because every rank takes part in exchanging gradients.
        """
        part = self._world.local_slice(global_size)
        return (part, 1.0) if part.stop > part.start else (slice(0, 1), 0.0)
