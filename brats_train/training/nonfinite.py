"""Stops a training whose loss is not finite, naming the step and the slices of its batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brats_cache.common.errors import BratsError, printable
from brats_cache.common.text import first_few
from brats_cache.format.reader import Cache
from brats_train.data.loader import Batches
from brats_train.data.selection import RowSet
from brats_train.runtime.distributed import World
from brats_train.training.train_step import NEVER

__all__ = ["raise_if_nonfinite"]

NUM_SHOWN = 8


def raise_if_nonfinite(
    first_bad_step: int,
    epoch: int,
    batches: Batches,
    rows: RowSet,
    caches: Sequence[Cache],
    world: World,
) -> None:
    """Raises `BratsError` on every rank where a loss of any rank was not finite.

    Args:
        first_bad_step: The first step of this rank with such a loss, `NEVER` for none.
        epoch: The running epoch, from 0.
        batches: Tells which samples the step held.
        rows: The training rows, which samples are positions in.
        caches: The caches of these rows.
        world: This process among its peers; all of them call this.
    """
    step, rank = min((step, rank) for rank, step in enumerate(world.all_gather(first_bad_step)))
    if step == NEVER:
        return
    names = ""
    if rank == world.rank:
        names = _slice_names(rows[batches.indices(epoch, step)], caches)
    names = next(text for text in world.all_gather(names) if text)
    error = BratsError(
        f"The loss is not finite at epoch {epoch + 1}, step {step}, rank {rank}. Its slices: "
        f"{names}. Try a smaller --lr or --amp off; the last good checkpoint is kept."
    )
    error.is_shared = True
    raise error


def _slice_names(rows: RowSet, caches: Sequence[Cache]) -> str:
    names = []
    for number, row in zip(rows.cache, rows.row, strict=True):
        record = caches[number].slices[row]
        case = caches[number].case_id(record["case"])
        names.append(f"{printable(case)} z={np.int64(record['z'])}")
    return first_few(names, NUM_SHOWN)
