"""What a run needs before its first step: data that can be learnt from, a model, a micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from brats_cache.common.errors import BratsError
from brats_cache.format.reader import Cache
from brats_train.data.selection import RowSet
from brats_train.models.checkpoint import load_segmenter
from brats_train.models.pretrained import load_encoder_weights
from brats_train.models.unet import ModelConfig, build_model
from brats_train.training.ema import MovingAverage
from brats_train.training.recipe import Recipe

__all__ = ["check_data", "common_scheme", "initial_model", "make_ema"]


def check_data(
    caches: Sequence[Cache],
    train_rows: RowSet,
    val_rows: RowSet,
    recipe: Recipe,
    say: Callable[[str], None],
) -> None:
    """Raises `BratsError` where the rows cannot be learnt from."""
    size = caches[0].shape[-1]
    if size % 32:
        raise BratsError(
            f"{caches[0].path}: slices of {size} pixels, but the U-Net halves them five times. "
            "Build the cache with a --size that is a multiple of 32."
        )
    if not len(train_rows):
        names = ", ".join(str(cache.path) for cache in caches)
        raise BratsError(f"{names}: no training rows (rows={recipe.rows}). Look with brats info.")
    if not len(val_rows):
        say("Warning: no validation rows; the best checkpoint is chosen by the training rows.")
    for cache in caches:
        for index in np.flatnonzero(cache.cases["has_mask"]):
            known = cache.scheme(int(index)).regions
            if missing := [region for region in recipe.regions if region not in known]:
                raise BratsError(
                    f"{cache.path}: the mask of {cache.cases['id'][index].decode()} (scheme "
                    f"{cache.scheme(int(index)).name}) does not know {', '.join(missing)}. "
                    "Train with --target wt."
                )


def initial_model(
    config: ModelConfig, encoder_weights: str, init_from: Path | None
) -> tuple[nn.Module, str]:
    """A new model and where its weights came from: another run's model, or encoder weights."""
    if init_from is None:
        model = build_model(config)
        return model, load_encoder_weights(model, encoder_weights)
    segmenter, model, _ = load_segmenter(init_from)
    if segmenter.model != config:
        raise BratsError(
            f"--init-from {init_from}: its model is {segmenter.model}, this run's {config}."
        )
    return model, f"{init_from} ({segmenter.weights_from})"


def make_ema(model: nn.Module, decay: float) -> MovingAverage | None:
    """A moving average of the weights; None for a decay of 0."""
    return MovingAverage(model, decay) if decay else None


def common_scheme(caches: Sequence[Cache]) -> str:
    """The label scheme of the first case that has a mask."""
    for cache in caches:
        for index in np.flatnonzero(cache.cases["has_mask"]):
            return cache.scheme(int(index)).name
    raise BratsError(f"{caches[0].path}: no case has a mask, so there is nothing to learn.")
