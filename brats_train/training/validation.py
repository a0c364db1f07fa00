"""Validation within training: mean loss and slice IoU, the host waiting for the device once.

Sums over samples are kept on the device in float64 and added up over batches and ranks; they are
divided by the number of samples at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from brats_cache.format.reader import Cache
from brats_train.data.feeders import make_feeder
from brats_train.data.selection import RowSet
from brats_train.data.targets import region_targets
from brats_train.evaluation.slice_iou import slice_ious
from brats_train.models.network import split_output
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import autocast
from brats_train.training import losses
from brats_train.training.recipe import Recipe

__all__ = ["NAMES", "Validator", "means_of", "sums_of"]

NAMES = ("loss", "bce", "iou_loss", "iou")
ROWS_AT_ONCE = 32


def sums_of(terms: losses.LossTerms, logits: Tensor, targets: Tensor) -> Tensor:
    """Sums the figures of a batch over its samples.

    Args:
        terms: Of `losses.compute`.
        logits: (B, K, H, W) of any floating type.
        targets: (B, K, H, W) in {0, 1}.

    Returns:
        (4,) float64 in the order of `NAMES`: the loss, the binary cross-entropy, the IoU loss, and
        the IoU at probability 1/2, the mean over regions.
    """
    ious = slice_ious(logits >= 0, targets).mean(dim=1)
    parts = (terms.total, terms.bce, terms.iou_loss, ious)
    return torch.stack([part.detach().double().sum() for part in parts])


def means_of(sums: Sequence[float], num: int) -> dict[str, float]:
    """Means by `NAMES` from their sums over `num` samples; NaN for none."""
    return {name: value / num if num else math.nan for name, value in zip(NAMES, sums, strict=True)}


class Validator:
    """Validates a model on the selected validation rows.

    Every rank takes its share of the rows and none is taken twice, so the means do not depend on
    the number of ranks.

    Attributes:
        num_rows: Number of validation rows over all ranks.
    """

    def __init__(
        self,
        caches: Sequence[Cache],
        rows: RowSet,
        recipe: Recipe,
        amp: str,
        world: World,
        resident: str,
        step_bytes: int = 0,
    ) -> None:
        """Takes this rank's share of `rows`; see `make_feeder` for `resident` and `step_bytes`."""
        self.num_rows = len(rows)
        self._recipe, self._amp, self._world = recipe, amp, world
        mine = rows[world.local_slice(len(rows))]
        self._chunks = [
            np.arange(start, min(start + ROWS_AT_ONCE, len(mine)))
            for start in range(0, len(mine), ROWS_AT_ONCE)
        ]
        self._feeder = make_feeder(
            caches,
            mine,
            context=recipe.context,
            largest=ROWS_AT_ONCE,
            device=world.device,
            resident=resident,
            step_bytes=step_bytes,
        )

    @torch.inference_mode()
    def sums(self, model: nn.Module) -> Tensor:
        """The sums of `NAMES` over all validation rows, (4,) float64 on the device.

        The host does not wait for them, so that it can read them together with others.
        """
        world, recipe = self._world, self._recipe
        # By sample, so that the means do not depend on how slices are batched.
        loss = replace(recipe.loss, overlap="sample")
        totals = torch.zeros(len(NAMES), dtype=torch.float64, device=world.device)
        if not self.num_rows:
            return totals
        world.broadcast_buffers(model)
        model.eval()
        for images, masks in self._feeder.feed(self._chunks):
            targets = region_targets(masks, recipe.regions)
            pixels = images.to(torch.float32, memory_format=torch.channels_last)
            with autocast(self._amp, world.device):
                logits, _ = split_output(model(pixels))
            totals += sums_of(losses.compute(loss, logits, targets), logits, targets)
        return world.sum_over_ranks(totals)

    @torch.inference_mode()
    def estimate_seconds(self, model: nn.Module) -> float:
        """Seconds that a validation will take, from one batch of it; every rank takes part.

        The batch is predicted twice and the second time counts: the first one allocates memory and
        chooses algorithms, which takes many times longer.
        """
        if not self._chunks:
            return 0.0
        model.eval()
        ends = []
        for images, _ in self._feeder.feed(self._chunks[:1] * 2):
            with autocast(self._amp, self._world.device):
                pixels = images.to(torch.float32, memory_format=torch.channels_last)
                logits, _ = split_output(model(pixels))
            float(logits.sum())  # waits for the device
            ends.append(time.monotonic())
        return (ends[1] - ends[0]) * len(self._chunks)
