"""Channels by modality: rows of caches that hold different modalities, in one order.

A modality that a case lacks is a channel of zeros, as modality dropout makes it in training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from brats_cache.discovery.namings import MODALITIES
from brats_cache.format.reader import Cache

__all__ = ["all_modalities", "channels_of", "place_channels"]


def all_modalities(caches: Sequence[Cache]) -> tuple[str, ...]:
    """The modalities of several caches: their own order where they agree, else t1, t1ce, t2, flair.

    >>> from types import SimpleNamespace as Some
    >>> def cache(*names):
    ...     return Some(preparation=Some(modalities=names))
    >>> all_modalities([cache("flair", "t1ce"), cache("t1", "flair")])
    ('t1', 't1ce', 'flair')
    """
    held = [cache.preparation.modalities for cache in caches]
    if len(set(held)) == 1:
        return held[0]
    return tuple(name for name in MODALITIES if any(name in one for one in held))


def channels_of(held: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Positions in `wanted` of the channels `held`, None where the two are equal.

    Raises:
        ValueError: A channel is not wanted.
    """
    if tuple(held) == tuple(wanted):
        return None
    return [tuple(wanted).index(name) for name in held]


def place_channels(images: np.ndarray, held: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Gives images the channels that a model takes.

    Args:
        images: (n, C, S, S), its channels the modalities `held`.
        held: C modalities.
        wanted: W modalities.

    Returns:
        (n, W, S, S) of the same dtype: channels that are not held are 0, others left aside.
    """
    if tuple(held) == tuple(wanted):
        return images
    placed = np.zeros((len(images), len(wanted), *images.shape[2:]), images.dtype)
    for channel, name in enumerate(wanted):
        if name in held:
            placed[:, channel] = images[:, tuple(held).index(name)]
    return placed
