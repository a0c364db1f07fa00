"""From prepared slices to probabilities on the scan's own grid: what `eval` and `predict` share."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import xxhash
from torch import Tensor, nn

from brats_cache.common.errors import BratsError
from brats_train.models.checkpoint import Segmenter, load_segmenter
from brats_train.runtime.precision import autocast, choose_amp

__all__ = ["Ensemble", "load_ensemble", "to_native"]

SLICES_AT_ONCE = 32
_FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """One or several trained models whose probabilities are averaged.

    segmenter     what they have in common; see `load_ensemble` for what they may differ in
    fingerprints  xxh3_64 of each checkpoint file, 16 hex digits
    """

    segmenter: Segmenter
    models: tuple[nn.Module, ...]
    paths: tuple[Path, ...]
    fingerprints: tuple[str, ...]
    device: torch.device
    amp: str

    @torch.inference_mode()
    def probabilities(self, images: np.ndarray, tta: bool = False) -> Tensor:
        """(n, C, S, S) float16 prepared slices -> (n, K, S, S) float32 on the device.

        The slices go through in chunks of a fixed size, so that equal slices give equal
        probabilities whoever asks. With `tta`, the mean over both flips and their combination.
        Raises `BratsError` where the models give NaN.
        """
        parts = [
            self._chunk(torch.from_numpy(images[start : start + SLICES_AT_ONCE].copy()), tta)
            for start in range(0, len(images), SLICES_AT_ONCE)
        ]
        if not parts:
            size = self.segmenter.preparation.size
            return torch.empty((0, len(self.segmenter.regions), size, size), device=self.device)
        whole = torch.cat(parts)
        if not whole.isfinite().all():
            raise BratsError(
                f"{', '.join(map(str, self.paths))}: the model gives NaN instead of probabilities; "
                "its weights are no use. Train again, or name another --checkpoint."
            )
        return whole

    def _chunk(self, images: Tensor, tta: bool) -> Tensor:
        pixels = images.to(self.device).float().contiguous(memory_format=torch.channels_last)
        flips = _FLIPS if tta else _FLIPS[:1]
        total: Tensor | None = None
        for model in self.models:
            for dims in flips:
                with autocast(self.amp, self.device):
                    output = model(pixels.flip(dims))
                logits = output[0] if isinstance(output, tuple) else output  # the rest is grades
                probability = logits.float().sigmoid().flip(dims)
                total = probability if total is None else total + probability
        assert total is not None
        return total / (len(self.models) * len(flips))


def load_ensemble(paths: Sequence[Path], device: torch.device, amp: str = "auto") -> Ensemble:
    """The checkpoints at `paths` as one.

    Of what training chose for each, the ensemble takes the mean threshold and component size, and
    averages over flips where any of them does. Raises `BratsError` where they predict different
    things or prepare their images differently.
    """
    loaded = [load_segmenter(path) for path in paths]
    segmenters = [segmenter for segmenter, _, _ in loaded]
    first = segmenters[0]
    for path, segmenter in zip(paths, segmenters, strict=True):
        for what, value, expected in (
            ("regions", segmenter.regions, first.regions),
            ("preparation of the images", segmenter.preparation, first.preparation),
        ):
            if value != expected:
                raise BratsError(
                    f"{path} and {paths[0]} cannot be averaged: their {what} differ: "
                    f"{value} and {expected}."
                )
    models = tuple(
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for _, model, _ in loaded
    )
    return Ensemble(
        segmenter=replace(
            first,
            threshold=statistics.fmean(one.threshold for one in segmenters),
            tta=any(one.tta for one in segmenters),
            min_component_voxels=round(
                statistics.fmean(one.min_component_voxels for one in segmenters)
            ),
        ),
        models=models,
        paths=tuple(paths),
        fingerprints=tuple(xxhash.xxh3_64_hexdigest(path.read_bytes()) for path in paths),
        device=device,
        amp=choose_amp(amp, device),
    )


def to_native(fitted: Tensor, height: int, width: int, fit: str) -> np.ndarray:
    """(n, K, S, S) probabilities -> (n, K, height, width) float32 in memory, on the slice's own
    grid: bilinear with half-pixel centres after "resize", cut out after "pad"."""
    if fit == "pad":
        size = fitted.shape[-1]
        top, left = (size - height) // 2, (size - width) // 2
        native = fitted[..., top : top + height, left : left + width]
    elif len(fitted):
        native = F.interpolate(fitted, (height, width), mode="bilinear", align_corners=False)
    else:
        native = fitted.new_empty((0, fitted.shape[1], height, width))
    # Weights of a bilinear mean are rounded, so it may leave [0, 1] by a step of float32.
    on_cpu: np.ndarray = native.clamp(0, 1).cpu().numpy()
    return on_cpu
