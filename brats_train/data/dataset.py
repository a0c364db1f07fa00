"""A cache as a PyTorch map-style dataset, one slice an item, for notebooks and other programs.

Training does not use it: `loader` and `feeders` read whole batches in threads, without workers.
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
from brats_cache.format.schema import SPLITS
from brats_cache.imaging.labels import REGIONS
from brats_train.data.selection import ROWS, select_rows
from brats_train.data.targets import region_targets

__all__ = ["BratsSlices"]


class BratsSlices(Dataset[tuple[Tensor, Tensor]]):
    """The slices of one split of one or several caches, as pairs of an image and its mask.

    An item is `(image, mask)`:

    - image: (C, S, S) float32, one channel a modality, in the order of `modalities`.
    - mask: (1, S, S) uint8 canonical labels: 0 background, 1 necrotic and non-enhancing core,
      2 oedema, 3 enhancing tumour, 4 resection cavity; 0 throughout for a case without a mask. With
      `regions` it is a target instead: (K, S, S) float32, 1 inside the region, else 0.

    Items are copies, which the caller may change. The dataset can be pickled and forked, as a
    `DataLoader` with workers does: a pickled one maps the files anew, a forked one shares the maps.

    Attributes:
        modalities: Names of the channels, of "t1", "t1ce", "t2" and "flair".

    Example::

        from brats_train import BratsSlices

        dataset = BratsSlices("data/brats.h5", "val")
        image, mask = dataset[0]
        case, z = dataset.where(0)
    """

    modalities: tuple[str, ...]

    def __init__(
        self,
        caches: str | Path | Sequence[str | Path],
        split: str = "train",
        *,
        rows: str = "all",
        fold: int | None = None,
        regions: Sequence[str] = (),
    ) -> None:
        """Opens the caches and selects their rows.

        Args:
            caches: One cache file, or several that were prepared alike.
            split: "train", "val" or "test".
            rows: Slices of each case: "all" that the cache holds, "middle" (z = Z // 2), or "tumor"
                (those with tumour in their mask).
            fold: This fold is "val" and the others are "train", in place of the cache's own split.
            regions: Channels of the target, of "wt", "tc" and "et"; none for masks.

        Raises:
            BratsError: A cache cannot be read, or lacks the rows or the fold.
            ValueError: There is no such split, rule for rows, or region.
        """
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
        if unknown := set(regions) - set(REGIONS):
            raise ValueError(f"regions {sorted(unknown)}; expected some of {', '.join(REGIONS)}")
        if rows not in ROWS:
            raise ValueError(f"rows is {rows!r}; expected one of {', '.join(ROWS)}")
        paths = [caches] if isinstance(caches, str | Path) else caches
        self._paths = tuple(Path(path).absolute() for path in paths)
        self._regions = tuple(regions)
        self._by_fold = fold is not None
        self._caches: list[Cache] | None = open_caches(self._paths, by_fold=self._by_fold)
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
        """The id of the case that an item comes from, and z of its slice: 0 is the lowest one."""
        cache, row = self._find(index)
        record = cache.slices[row]
        return cache.case_id(record["case"]), int(record["z"])

    def _find(self, index: int) -> tuple[Cache, int]:
        """Raises IndexError outside the dataset, which ends a plain loop over it."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        if self._caches is None:
            self._caches = open_caches(self._paths, by_fold=self._by_fold)
        return self._caches[self._rows.cache[index]], int(self._rows.row[index])

    def __getstate__(self) -> dict[str, Any]:
        """Without the caches: pickling a map would copy the whole file."""
        return {**self.__dict__, "_caches": None}
