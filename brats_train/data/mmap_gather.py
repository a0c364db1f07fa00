"""Copying rows of memory-mapped caches into buffers: prefetching, and a pool of copying threads.

The copies are NumPy's. PyTorch's threads split every row and synchronise after it; outside the main
thread they sleep in between, and waking four of them takes several times longer than copying a row
of half a megabyte.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch

from brats_cache.format.reader import Cache
from brats_train.data.channels import all_modalities, channels_of
from brats_train.data.context import neighbor_rows, num_slices
from brats_train.data.selection import RowSet

__all__ = ["CopyThreadPool", "MappedRows"]

MAX_THREADS = 8  # enough to saturate the memory bandwidth of a large machine


class CopyThreadPool(ThreadPoolExecutor):
    """A thread pool for copies, with as many threads as PyTorch uses for one operation.

    Attributes:
        num_threads: Threads of the pool.
    """

    def __init__(self) -> None:
        self.num_threads = min(torch.get_num_threads(), MAX_THREADS)
        super().__init__(self.num_threads, "copy")


class MappedRows:
    """Reads the selected rows of several caches, with their neighbours.

    Attributes:
        rows: The selection; all `indices` below are positions in it.
        shape: (C, S, S) of the images of a sample, the slices of its context stacked. Where caches
            hold different modalities, C counts those of all, and missing ones are 0.
    """

    def __init__(self, caches: Sequence[Cache], rows: RowSet, context: int = 0) -> None:
        self.rows, self._caches = rows, caches
        modalities, (height, width) = all_modalities(caches), caches[0].shape[2:]
        self.shape = (num_slices(context) * len(modalities), height, width)
        self._channels = [channels_of(cache.preparation.modalities, modalities) for cache in caches]
        self._stacks = neighbor_rows(caches, rows, context)
        self._pixels = [(np.asarray(cache.images), np.asarray(cache.masks)) for cache in caches]
        self._files = [os.open(cache.path, os.O_RDONLY) for cache in caches]
        weakref.finalize(self, _close, self._files)

    def prefetch(self, indices: np.ndarray) -> None:
        """Asks the kernel to read rows into the page cache (posix_fadvise WILLNEED).

        A row is far larger than the kernel's read-ahead: with a cold page cache this makes reading
        nearly twice as fast, with a warm one it costs a tenth. The call waits where the disk's
        queue is full, and lets other threads go on meanwhile; madvise of Python's mmap would hold
        the interpreter's lock.

        Args:
            indices: (n,) int64 positions in `rows`.
        """
        rows = self.rows[indices]
        for number, row, stack in zip(
            rows.cache.tolist(), rows.row.tolist(), self._stacks[indices].tolist(), strict=True
        ):
            cache, (images, masks) = self._caches[number], self._pixels[number]
            for start, row_bytes, wanted in (
                (cache.images_offset, images[0].nbytes, stack),
                (cache.masks_offset, masks[0].nbytes, [row]),
            ):
                for one in wanted:
                    first = start + one * row_bytes
                    os.posix_fadvise(self._files[number], first, row_bytes, os.POSIX_FADV_WILLNEED)

    def start_copying(
        self, indices: np.ndarray, images: np.ndarray, masks: np.ndarray, pool: CopyThreadPool
    ) -> list[Future[None]]:
        """Starts copying rows into buffers, each thread a contiguous part.

        Args:
            indices: (n,) int64 positions in `rows`.
            images: (n, C, S, S) float16, to be filled, see `shape`.
            masks: (n, 1, S, S) uint8, to be filled.
            pool: Copies.

        Returns:
            A future for each part; the rows are copied once all are done.

        Raises:
            CacheCorruptError: A cache was cut short since it was opened.
        """
        for cache in self._caches:
            cache.check_length()
        bounds = [len(indices) * part // pool.num_threads for part in range(pool.num_threads + 1)]
        return [
            pool.submit(self._copy, indices[start:stop], images[start:stop], masks[start:stop])
            for start, stop in pairwise(bounds)
        ]

    def _copy(self, indices: np.ndarray, images: np.ndarray, masks: np.ndarray) -> None:
        rows, stacks = self.rows[indices], self._stacks[indices]
        channels = self.shape[0] // stacks.shape[1]
        slices = images.reshape(*stacks.shape, channels, *self.shape[1:])  # a view
        for cache in np.unique(rows.cache):
            source_images, source_masks = self._pixels[cache]
            here = np.flatnonzero(rows.cache == cache)
            placed = self._channels[cache]
            if len(here) == len(rows) and placed is None:
                # mode "raise" would copy through a buffer of NumPy's; the rows are in range.
                np.take(source_images, stacks, axis=0, out=slices, mode="clip")
                np.take(source_masks, rows.row, axis=0, out=masks, mode="clip")
                continue
            for index in here.tolist():
                if placed is None:
                    np.take(source_images, stacks[index], axis=0, out=slices[index], mode="clip")
                else:
                    slices[index] = 0
                    slices[index][:, placed] = source_images[stacks[index]]
                masks[index] = source_masks[rows.row[index]]


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)
