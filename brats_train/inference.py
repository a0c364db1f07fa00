"""From prepared slices to probabilities on the scan's own grid: what `eval` and `predict` share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brats_cache.errors import BratsError

from .checkpoint import Segmenter, load_segmenter
from .precision import autocast, choose_amp

__all__ = ["Ensemble", "label_volume", "load_ensemble", "to_native"]

SLICES_AT_ONCE = 32
_FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """One or several trained models whose probabilities are averaged."""

    segmenter: Segmenter
    models: tuple[nn.Module, ...]
    paths: tuple[Path, ...]
    device: torch.device
    amp: str

    @torch.inference_mode()
    def probabilities(self, images: np.ndarray, tta: bool = False) -> Tensor:
        """(n, C, S, S) float16 prepared slices -> (n, K, S, S) float32 on the device.

        The slices go through in chunks of a fixed size, so that equal slices give equal
        probabilities whoever asks. With `tta`, the mean over both flips and their combination.
        """
        parts = [
            self._chunk(torch.from_numpy(images[start : start + SLICES_AT_ONCE].copy()), tta)
            for start in range(0, len(images), SLICES_AT_ONCE)
        ]
        return torch.cat(parts)

    def _chunk(self, images: Tensor, tta: bool) -> Tensor:
        pixels = images.to(self.device).float().contiguous(memory_format=torch.channels_last)
        flips = _FLIPS if tta else _FLIPS[:1]
        total: Tensor | None = None
        for model in self.models:
            for dims in flips:
                with autocast(self.amp, self.device):
                    logits = model(pixels.flip(dims))
                probability = logits.float().sigmoid().flip(dims)
                total = probability if total is None else total + probability
        assert total is not None
        return total / (len(self.models) * len(flips))


def load_ensemble(paths: Sequence[Path], device: torch.device, amp: str = "auto") -> Ensemble:
    """The checkpoints at `paths` as one. Raises `BratsError` where they predict different things
    or prepare their images differently."""
    loaded = [load_segmenter(path) for path in paths]
    first = loaded[0][0]
    for path, (segmenter, _, _) in zip(paths, loaded, strict=True):
        if (segmenter.regions, segmenter.preparation) != (first.regions, first.preparation):
            raise BratsError(
                f"{path} and {paths[0]} cannot be averaged: their regions or the preparation of "
                "their images differ."
            )
    models = tuple(
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for _, model, _ in loaded
    )
    return Ensemble(
        segmenter=first,
        models=models,
        paths=tuple(paths),
        device=device,
        amp=choose_amp(amp, device),
    )


def to_native(fitted: Tensor, height: int, width: int, fit: str) -> Tensor:
    """(n, K, S, S) probabilities -> (n, K, height, width) on the slice's own grid: bilinear with
    half-pixel centres after "resize", cut out after "pad"."""
    if fit == "pad":
        size = fitted.shape[-1]
        top, left = (size - height) // 2, (size - width) // 2
        return fitted[..., top : top + height, left : left + width]
    return F.interpolate(fitted, (height, width), mode="bilinear", align_corners=False)


def label_volume(is_in_region: np.ndarray, regions: Sequence[str]) -> np.ndarray:
    """(K, Z, Y, X) bool -> (Z, Y, X) uint8 canonical labels.

    Regions are nested, so each voxel takes the innermost that claims it: ET 3, else TC 1, else
    WT 2. A voxel of TC or ET counts as tumour even where WT was not predicted.
    """
    labels = np.zeros(is_in_region.shape[1:], np.uint8)
    for region, label in (("wt", 2), ("tc", 1), ("et", 3)):
        if region in regions:
            labels[is_in_region[list(regions).index(region)]] = label
    return labels
