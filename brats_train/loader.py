"""Batches from memory maps: the order of an epoch, and a thread that keeps a ring of buffers full.

The order is a pure function of (seed, epoch) over the rows of all caches; each rank takes its part
of every global batch. So the state of the data path is three integers, whatever the world size.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from brats_cache.errors import BratsError
from brats_cache.labels import REGIONS
from brats_cache.store import Cache

from .distributed import World

__all__ = [
    "Batch",
    "Batches",
    "RowSet",
    "case_splits",
    "epoch_order",
    "gather_rows",
    "region_targets",
    "rows_by_rule",
    "select_rows",
]

NUM_SLOTS = 3  # one being filled, one waiting, one being copied to the device


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSet:
    """Rows of one or several caches, in a fixed order.

    cache  (n,) int64, number of the cache
    row    (n,) int64, row in that cache
    """

    cache: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: np.ndarray | slice) -> RowSet:
        return RowSet(cache=self.cache[index], row=self.row[index])


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """This rank's part of one global batch.

    images        (B, C, S, S) float32 on the device
    masks         (B, 1, S, S) uint8 canonical labels on the device
    step          number of the step in its epoch
    global_size   samples of the batch over all ranks
    part          this rank's samples among them
    """

    images: Tensor
    masks: Tensor
    step: int
    global_size: int
    part: slice


def case_splits(cache: Cache, fold: int | None) -> np.ndarray:
    """The split of each case, (cases,) of str: the cache's own, or what `fold` makes of it.

    With a fold, its cases validate and all others that are not test train.
    """
    splits = np.char.decode(cache.cases["split"])
    if fold is None:
        return splits
    folds = cache.cases["fold"]
    if fold not in folds:
        raise BratsError(
            f"--fold {fold}: {cache.path} has {folds.max() + 1 if folds.max() >= 0 else 'no'} folds"
            " (numbered from 0). Build it with --folds K."
        )
    return np.where(folds < 0, "test", np.where(folds == fold, "val", "train"))


def select_rows(caches: Sequence[Cache], split: str, rule: str, fold: int | None = None) -> RowSet:
    """The rows of `split` that `rule` ("middle", "all", "tumor") names, caches in order.

    Raises `BratsError` where "middle" is asked of a cache that lacks the middle slice of a case.
    """
    parts = [
        _rows_of(cache, np.flatnonzero(case_splits(cache, fold) == split), rule) for cache in caches
    ]
    return RowSet(
        cache=np.concatenate([np.full(len(rows), index) for index, rows in enumerate(parts)]),
        row=np.concatenate(parts),
    )


def rows_by_rule(cache: Cache, case: int, rule: str) -> np.ndarray:
    """The rows of case number `case` that `rule` names, ascending, (n,) int64."""
    return _rows_of(cache, np.array([case]), rule)


def _rows_of(cache: Cache, cases: np.ndarray, rule: str) -> np.ndarray:
    chosen = np.isin(cache.slices["case"], cases)
    if rule == "tumor":
        pixels = cache.slices["label_pixels"][:, sorted(REGIONS["wt"])]
        chosen &= pixels.any(axis=1)
    elif rule == "middle":
        depth = np.array([cache.depth(case) for case in range(len(cache.cases))])
        chosen &= cache.slices["z"] == depth[cache.slices["case"]] // 2
        missing = np.setdiff1d(cases, cache.slices["case"][chosen])
        if len(missing):
            names = ", ".join(cache.cases["id"][case].decode() for case in missing[:5])
            raise BratsError(
                f"{cache.path}: no middle slice of {len(missing)} cases ({names}). Build the cache "
                "with --slices brain, middle or all, or train with --set rows=all."
            )
    return np.flatnonzero(chosen)


def epoch_order(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the rows in an epoch, a permutation that depends on its arguments alone."""
    return np.random.default_rng((seed, epoch)).permutation(num_rows)


def region_targets(masks: Tensor, regions: Sequence[str]) -> Tensor:
    """(B, 1, H, W) uint8 canonical labels -> (B, K, H, W) bool, a channel a region."""
    channels = []
    for region in regions:
        first, *others = sorted(REGIONS[region])
        channel = masks == first
        for label in others:
            channel |= masks == label
        channels.append(channel)
    return torch.cat(channels, dim=1)


def gather_rows(
    caches: Sequence[Cache], rows: RowSet, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows at once, without the ring: (n, C, S, S) float32 and (n, 1, S, S) uint8 on `device`."""
    slot = _Slot.empty(len(rows), caches[0].shape, pinned=False)
    slot.fill(caches, rows)
    return slot.images.to(device).float(), slot.masks.to(device)


class Batches:
    """The batches of a run on one rank.

    waited_seconds  what the caller has spent waiting for data in the current epoch
    """

    def __init__(
        self, caches: Sequence[Cache], rows: RowSet, *, batch_size: int, seed: int, world: World
    ) -> None:
        """`batch_size` counts the samples of all ranks. Raises `BratsError` for fewer rows than
        ranks."""
        if len(rows) < world.size:
            raise BratsError(
                f"{len(rows)} training rows for {world.size} processes: expected one each at least."
            )
        self._caches, self._rows, self._world = caches, rows, world
        self._batch_size = max(batch_size, world.size)
        self._seed = seed
        self.waited_seconds = 0.0
        largest = -(-min(self._batch_size, len(rows)) // world.size)
        pinned = world.device.type == "cuda"
        self._slots = [
            _Slot.empty(largest, caches[0].shape, pinned=pinned) for _ in range(NUM_SLOTS)
        ]

    @property
    def num_steps(self) -> int:
        """Steps of an epoch; a last batch smaller than the world, which would idle a rank, is left
        out."""
        whole, rest = divmod(len(self._rows), self._batch_size)
        return whole + (rest >= self._world.size)

    @property
    def num_samples(self) -> int:
        """Samples of an epoch over all ranks."""
        return min(len(self._rows), self.num_steps * self._batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, in order."""
        order = epoch_order(len(self._rows), self._seed, epoch)
        free: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        ready: queue.SimpleQueue[_Slot | BaseException] = queue.SimpleQueue()
        for slot in self._slots:
            free.put(slot)
        stop = threading.Event()
        thread = threading.Thread(
            target=self._fill, args=(order, free, ready, stop), daemon=True, name="gather"
        )
        thread.start()
        self.waited_seconds = 0.0
        try:
            for step in range(self.num_steps):
                asked = time.monotonic()
                filled = ready.get()
                self.waited_seconds += time.monotonic() - asked
                if isinstance(filled, BaseException):
                    raise filled
                yield self._deliver(filled, step)
                free.put(filled)
        finally:
            stop.set()
            free.put(self._slots[0])  # wakes a thread that waits for a free slot
            thread.join()

    def _fill(
        self,
        order: np.ndarray,
        free: queue.SimpleQueue[_Slot],
        ready: queue.SimpleQueue[_Slot | BaseException],
        stop: threading.Event,
    ) -> None:
        """The gathering thread's life: copies rows into free slots, in order."""
        try:
            for step in range(self.num_steps):
                slot = free.get()
                if stop.is_set():
                    return
                chunk = order[step * self._batch_size : (step + 1) * self._batch_size]
                slot.fill(self._caches, self._rows[chunk[self._world.part(len(chunk))]])
                ready.put(slot)
        except BaseException as error:  # the training thread raises it
            ready.put(error)

    def _deliver(self, slot: _Slot, step: int) -> Batch:
        start = step * self._batch_size
        global_size = min(self._batch_size, len(self._rows) - start)
        device = self._world.device
        # The copy to float32 on the CPU and the copy to the device on CUDA both leave the slot
        # free for the next fill; on CUDA that fill must wait for the copy, hence the synchronous
        # copy here.
        images = slot.images[: slot.num].to(device).float()
        masks = slot.masks[: slot.num].to(device, copy=True)
        return Batch(
            images=images,
            masks=masks,
            step=step,
            global_size=global_size,
            part=self._world.part(global_size),
        )


@dataclass(kw_only=True)
class _Slot:
    """One buffer of the ring."""

    images: Tensor
    masks: Tensor
    num: int = 0

    @classmethod
    def empty(cls, num: int, shape: tuple[int, int, int, int], *, pinned: bool) -> _Slot:
        """Room for `num` rows of a cache of `shape` (N, C, S, S)."""
        _, channels, height, width = shape
        return cls(
            images=torch.empty(
                (num, channels, height, width), dtype=torch.float16, pin_memory=pinned
            ),
            masks=torch.empty((num, 1, height, width), dtype=torch.uint8, pin_memory=pinned),
        )

    def fill(self, caches: Sequence[Cache], rows: RowSet) -> None:
        self.num = len(rows)
        images, masks = self.images.numpy()[: self.num], self.masks.numpy()[: self.num]
        for index, cache in enumerate(caches):
            places = np.flatnonzero(rows.cache == index)
            if len(places) == self.num:  # mode="clip" lets take write straight into `out`
                np.take(cache.images, rows.row, axis=0, out=images, mode="clip")
                np.take(cache.masks, rows.row, axis=0, out=masks, mode="clip")
            elif len(places):
                images[places] = cache.images[rows.row[places]]
                masks[places] = cache.masks[rows.row[places]]
