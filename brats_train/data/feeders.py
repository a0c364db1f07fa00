"""Feeders bring selected rows to the device: streamed through a ring of buffers, or resident on it.

`RingFeeder` copies rows in threads into a ring of (pinned) buffers, and from there to the device on
a CUDA stream of its own, while the device computes. `ResidentFeeder` keeps all rows on the device.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_train.data.channels import all_modalities
from brats_train.data.context import with_neighbors
from brats_train.data.mmap_gather import CopyThreadPool, MappedRows
from brats_train.data.selection import RowSet
from brats_train.runtime.gpu_memory import free_memory

__all__ = ["Feeder", "make_feeder", "resident_bytes"]

NUM_SLOTS = 4  # two being filled or full, two being copied to the device or in use
RESIDENT_SHARE = 0.5  # of the memory that a step leaves: validation and other programs take some
Chunks = Sequence[np.ndarray]  # (n,) int64 positions in a RowSet for each batch


class Feeder(Protocol):
    """Brings the pixels of a RowSet to the device.

    Attributes:
        waited_seconds: Seconds that the caller of the last `feed` has waited for data.
    """

    waited_seconds: float

    def feed(self, chunks: Chunks) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields images and masks of each chunk, in order.

        Args:
            chunks: Positions in the RowSet, at most `largest` for each batch.

        Yields:
            (B, C, S, S) float16 images, C the channels of all slices of a sample, and
            (B, 1, S, S) uint8 masks, on the device. They may be overwritten once the next pair is
            requested.
        """
        ...


def make_feeder(
    caches: Sequence[Cache],
    rows: RowSet,
    *,
    context: int = 0,
    largest: int,
    device: torch.device,
    resident: str = "auto",
    step_bytes: int = 0,
) -> Feeder:
    """Makes a feeder.

    Args:
        caches: The caches that `rows` refers to.
        rows: The selected rows.
        context: Neighbours on each side of a slice, see `context`.
        largest: The most rows of a batch.
        device: Where the batches are needed.
        resident: "always" keeps all rows on the device, "never" streams them, "auto" keeps them
            where they take at most half of the memory that a step leaves free on a CUDA device.
        step_bytes: The memory that a step takes beside what is on the device already.

    Raises:
        BratsError: The rows do not fit on the device, with "always".
    """
    stored, stacks = with_neighbors(caches, rows, context)
    num_bytes = len(stored) * _bytes_of_a_row(caches)
    if resident == "auto":
        room = RESIDENT_SHARE * (free_memory(device) - step_bytes)
        resident = "always" if num_bytes < room else "never"
    if resident == "never":
        return RingFeeder(MappedRows(caches, rows, context), largest=largest, device=device)
    try:
        return ResidentFeeder(caches, stored, stacks, largest=largest, device=device)
    except torch.OutOfMemoryError as error:
        raise BratsError(
            f"{num_bytes / 2**30:.1f} GiB of rows do not fit on {device}. Use --resident never."
        ) from error


def resident_bytes(caches: Sequence[Cache], rows: RowSet, context: int) -> int:
    """Bytes that the selected rows and their neighbours take on a device."""
    return len(with_neighbors(caches, rows, context)[0]) * _bytes_of_a_row(caches)


def _bytes_of_a_row(caches: Sequence[Cache]) -> int:
    channels, (height, width) = len(all_modalities(caches)), caches[0].shape[2:]
    return height * width * (2 * channels + 1)


class RingFeeder:
    """Streams rows from the memory maps through a ring of buffers, pinned for CUDA.

    On a CPU the buffers themselves are yielded: the kernel would take four times longer to clear
    new memory for every batch than copying the rows takes.
    """

    def __init__(self, source: MappedRows, *, largest: int, device: torch.device) -> None:
        self.waited_seconds = 0.0
        self._source, self._device = source, device
        self._slots = [_Slot(largest, source.shape, device) for _ in range(NUM_SLOTS)]
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def feed(self, chunks: Chunks) -> Iterator[tuple[Tensor, Tensor]]:
        free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        ready: queue.SimpleQueue[_Slot | BaseException] = queue.SimpleQueue()
        for slot in self._slots:
            free.put(slot)
        stop = threading.Event()
        gatherer = threading.Thread(
            target=self._gather, args=(chunks, free, ready, stop), daemon=True, name="gather"
        )
        gatherer.start()
        self.waited_seconds = 0.0
        sent: list[_Sent] = []
        num_sent = 0
        try:
            for _ in range(len(chunks)):
                # Copies to the device run ahead of the computation as far as rows are gathered.
                while num_sent < len(chunks) and (not sent or not ready.empty()):
                    slot = self._next(ready)
                    sent.append(self._send(slot))
                    if self._copies is not None:
                        free.put(slot)  # `start_filling` waits for the copy
                    num_sent += 1
                    if len(sent) == NUM_SLOTS - 2:
                        break
                arrived = sent.pop(0)
                yield self._arrived(arrived)
                if self._copies is None:
                    free.put(arrived.slot)
        finally:
            stop.set()
            free.put(self._slots[0])  # wakes a thread that waits for a free slot
            gatherer.join()

    def _next(self, ready: queue.SimpleQueue[_Slot | BaseException]) -> _Slot:
        asked = time.monotonic()
        filled = ready.get()
        self.waited_seconds += time.monotonic() - asked
        if isinstance(filled, BaseException):
            raise filled
        return filled

    def _gather(
        self,
        chunks: Chunks,
        free: queue.SimpleQueue[_Slot],
        ready: queue.SimpleQueue[_Slot | BaseException],
        stop: threading.Event,
    ) -> None:
        """Runs in a thread: copies the chunks into free slots, and prefetches the next chunk."""
        if self._device.type == "cuda":  # else this thread would open a context on GPU 0
            torch.cuda.set_device(self._device)
        try:
            with CopyThreadPool() as pool:
                before: _Slot | None = None
                for number, chunk in enumerate(chunks):
                    slot = free.get()
                    if stop.is_set():
                        return
                    if number == 0:
                        self._source.prefetch(chunk)
                    slot.start_filling(self._source, chunk, pool)
                    if number + 1 < len(chunks):
                        self._source.prefetch(chunks[number + 1])
                    # The next slot is begun before this one is done, so that no thread is idle.
                    if before is not None:
                        ready.put(before.filled())
                    before = slot
                if before is not None:
                    ready.put(before.filled())
        except BaseException as error:  # the training thread raises it
            ready.put(error)

    def _send(self, slot: _Slot) -> _Sent:
        """Starts copying a slot to the device, on the stream of copies."""
        images, masks = slot.images, slot.masks
        if slot.copied is not None:
            with torch.cuda.stream(self._copies):
                images = images.to(self._device, non_blocking=True)
                masks = masks.to(self._device, non_blocking=True)
                slot.copied.record(self._copies)
        return _Sent(images=images, masks=masks, slot=slot)

    def _arrived(self, sent: _Sent) -> tuple[Tensor, Tensor]:
        """Makes the computing stream wait for the copy; the host waits for neither."""
        if sent.slot.copied is not None:
            current = torch.cuda.current_stream(self._device)
            # The event, not the stream: that would wait for the next batch's copy as well. The slot
            # cannot have been sent again, because at most two batches are in flight.
            current.wait_event(sent.slot.copied)
            sent.images.record_stream(current)
            sent.masks.record_stream(current)
        return sent.images, sent.masks


class ResidentFeeder:
    """Keeps all rows on the device, as they are in the cache, and gathers batches there."""

    def __init__(
        self,
        caches: Sequence[Cache],
        rows: RowSet,
        stacks: np.ndarray,
        *,
        largest: int,
        device: torch.device,
    ) -> None:
        """Uploads `rows`; `stacks` holds positions in them, see `with_neighbors`."""
        self.waited_seconds = 0.0
        self._device, self._stacks = device, stacks
        source, num = MappedRows(caches, rows), len(rows)
        channels, height, width = source.shape
        self._images = torch.empty(
            (num, channels, height, width), dtype=torch.float16, device=device
        )
        self._masks = torch.empty((num, 1, height, width), dtype=torch.uint8, device=device)
        slot = _Slot(min(largest, num), source.shape, torch.device("cpu"))
        with CopyThreadPool() as pool:
            for start in range(0, num, largest):
                stop = min(start + largest, num)
                slot.start_filling(source, np.arange(start, stop), pool)
                slot.filled()
                self._images[start:stop] = slot.images.to(device)
                self._masks[start:stop] = slot.masks.to(device)

    def feed(self, chunks: Chunks) -> Iterator[tuple[Tensor, Tensor]]:
        self.waited_seconds = 0.0
        if not chunks:
            return
        order = torch.from_numpy(self._stacks[np.concatenate(chunks)])
        if self._device.type == "cuda":  # one copy for the epoch, which the host does not wait for
            order = order.pin_memory().to(self._device, non_blocking=True)
        middle = order.shape[1] // 2
        for stacks in order.split([len(chunk) for chunk in chunks]):
            images = self._images.index_select(0, stacks.flatten())
            masks = self._masks.index_select(0, stacks[:, middle])
            yield images.view(len(stacks), -1, *images.shape[2:]), masks


class _Slot:
    """One buffer of the ring, pinned for CUDA.

    Attributes:
        copied: CUDA event of the last copy to the device; None on a CPU.
    """

    def __init__(self, largest: int, shape: tuple[int, int, int], device: torch.device) -> None:
        channels, height, width = shape
        pinned = device.type == "cuda"
        self._images = torch.empty(
            (largest, channels, height, width), dtype=torch.float16, pin_memory=pinned
        )
        self._masks = torch.empty((largest, 1, height, width), dtype=torch.uint8, pin_memory=pinned)
        self._num = 0
        self._copies: list[Future[None]] = []
        self.copied = torch.cuda.Event() if pinned else None

    @property
    def images(self) -> Tensor:
        return self._images[: self._num]

    @property
    def masks(self) -> Tensor:
        return self._masks[: self._num]

    def start_filling(self, source: MappedRows, indices: np.ndarray, pool: CopyThreadPool) -> None:
        """Starts copying rows in, once the last copy to the device has read this slot."""
        if self.copied is not None:
            self.copied.synchronize()
        self._num = len(indices)
        images, masks = self.images.numpy(), self.masks.numpy()
        self._copies = source.start_copying(indices, images, masks, pool)

    def filled(self) -> _Slot:
        """Waits until the rows are copied in. Raises what copying them raised."""
        for copy in self._copies:
            copy.result()
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sent:
    """A batch being copied: its tensors on the device, and the slot it comes from."""

    images: Tensor
    masks: Tensor
    slot: _Slot
