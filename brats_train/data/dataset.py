"""A cache as a plain PyTorch dataset, one slice at a time, for notebooks and other people's code.

Training does not use it: `loader` gathers whole batches by a thread, without worker processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from brats_cache.format.cache_set import open_caches
from brats_cache.format.reader import Cache
from brats_cache.imaging.labels import REGIONS
from brats_train.data.selection import ROWS, select_rows
from brats_train.data.targets import region_targets

__all__ = ["BratsSlices"]


class BratsSlices(Dataset[tuple[Tensor, Tensor]]):
    """The slices of one split of one or several caches; each item an image and its mask or target.

    image   (C, S, S) float32, modalities in the order of `modalities`
    mask    (1, S, S) uint8 canonical labels: 0 background, 1 NCR/NET, 2 ED, 3 ET, 4 resection
            cavity; 0 throughout for a case without a mask
    target  with `regions` in place of the mask: (K, S, S) float32, 1 inside the region, else 0

    Items are copies that the caller may change. A pickled or forked dataset maps the files anew or
    shares the maps, which are read-only; no handle of the HDF5 library outlives the constructor.
    """

    def __init__(
        self,
        caches: str | Path | Sequence[str | Path],
        split: str = "train",
        *,
        rows: str = "all",
        fold: int | None = None,
        regions: Sequence[str] = (),
    ) -> None:
        """`caches` are one or several files that were prepared alike.

        split    "train", "val" or "test"
        rows     "all", "middle" (z = Z // 2 of each case) or "tumor"
        fold     this fold validates and the others train, in place of the cache's own split
        regions  of "wt", "tc" and "et"; none for masks

        Raises `BratsError` where a cache cannot be read or lacks the rows or the fold, ValueError
        for regions and rows that do not exist.
        """
        if unknown := set(regions) - set(REGIONS):
            raise ValueError(f"regions {sorted(unknown)}; expected some of {', '.join(REGIONS)}")
        if rows not in ROWS:
            raise ValueError(f"rows is {rows!r}; expected one of {', '.join(ROWS)}")
        paths = [caches] if isinstance(caches, str | Path) else caches
        self._paths = tuple(Path(path).absolute() for path in paths)
        self._regions = tuple(regions)
        self._caches: list[Cache] | None = open_caches(self._paths)
        self._rows = select_rows(self._caches, split, rows, fold)
        self.modalities = self._caches[0].preparation.modalities

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        cache, row = self._find(index)
        image = torch.from_numpy(cache.images[row].astype(np.float32))
        mask = torch.from_numpy(np.array(cache.masks[row]))
        if self._regions:
            return image, region_targets(mask[None], self._regions)[0].float()
        return image, mask

    def where(self, index: int) -> tuple[str, int]:
        """The case an item comes from, and its place z in the canonical scan, from 0 at the feet's
        side."""
        cache, row = self._find(index)
        record = cache.slices[row]
        return cache.cases["id"][record["case"]].decode(), int(record["z"])

    def _find(self, index: int) -> tuple[Cache, int]:
        """Raises IndexError outside the dataset, which ends a plain loop over it."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        if self._caches is None:
            self._caches = open_caches(self._paths)
        return self._caches[self._rows.cache[index]], int(self._rows.row[index])

    def __getstate__(self) -> dict[str, Any]:
        """Without the caches: pickling a map would copy the whole file."""
        return {**self.__dict__, "_caches": None}
