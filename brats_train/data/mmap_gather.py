"""Rows out of memory maps into buffers: threads that copy, and word to the kernel ahead.

The copies are NumPy's and not PyTorch's, whose threads share each row and wait for each other after
it. Outside the main thread they sleep in between, and waking four of them takes several times
longer than copying a row of half a megabyte.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch

from brats_cache.format.reader import Cache
from brats_train.data.selection import RowSet

__all__ = ["CopyingThreads", "MappedRows"]

MOST_THREADS = 8  # what saturates the memory of a large machine


class CopyingThreads(ThreadPoolExecutor):
    """Threads to copy with: as many as PyTorch takes for an operation."""

    def __init__(self) -> None:
        self.num = min(torch.get_num_threads(), MOST_THREADS)
        super().__init__(self.num, "copy")


class MappedRows:
    """The chosen rows of several caches, in the order in which `rows` has them."""

    def __init__(self, caches: Sequence[Cache], rows: RowSet) -> None:
        self.rows = rows
        self._pixels = [(np.asarray(cache.images), np.asarray(cache.masks)) for cache in caches]
        self._maps = [(_map_of(cache.images), _map_of(cache.masks)) for cache in caches]

    def prefetch(self, places: np.ndarray) -> None:
        """Has the kernel read the rows at `places` ahead. A row is far larger than its own
        read-ahead, so that with a cold page cache this makes gathering nearly twice as fast;
        warm it costs a tenth."""
        rows = self.rows[places]
        for index, row in zip(rows.cache.tolist(), rows.row.tolist(), strict=True):
            for mapped, start, row_bytes in self._maps[index]:
                first = start + row * row_bytes
                aligned = first - first % mmap.PAGESIZE
                mapped.madvise(mmap.MADV_WILLNEED, aligned, first + row_bytes - aligned)

    def start_copying(
        self, places: np.ndarray, images: np.ndarray, masks: np.ndarray, threads: CopyingThreads
    ) -> list[Future[None]]:
        """Has the rows at `places` (n,) copied into `images`, (n, C, S, S) float16, and `masks`,
        (n, 1, S, S) uint8, each thread its share; they are there when all shares are done."""
        bounds = [len(places) * share // threads.num for share in range(threads.num + 1)]
        return [
            threads.submit(
                self._copy, self.rows[places[start:stop]], images[start:stop], masks[start:stop]
            )
            for start, stop in pairwise(bounds)
        ]

    def _copy(self, rows: RowSet, images: np.ndarray, masks: np.ndarray) -> None:
        for index in np.unique(rows.cache):
            source_images, source_masks = self._pixels[index]
            places = np.flatnonzero(rows.cache == index)
            if len(places) == len(rows):
                # "clip", because "raise" would go through a buffer; the rows are in range.
                np.take(source_images, rows.row, axis=0, out=images, mode="clip")
                np.take(source_masks, rows.row, axis=0, out=masks, mode="clip")
                continue
            for place, row in zip(places.tolist(), rows.row[places].tolist(), strict=True):
                images[place], masks[place] = source_images[row], source_masks[row]


def _map_of(array: np.ndarray) -> tuple[mmap.mmap, int, int]:
    """The map under a memory-mapped array, where in it the array starts, and a row's bytes."""
    assert isinstance(array, np.memmap)
    mapped = array._mmap  # type: ignore[attr-defined]
    return mapped, array.offset % mmap.ALLOCATIONGRANULARITY, array[:1].nbytes
