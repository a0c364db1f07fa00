"""One or several trained models, from prepared slices to probabilities on the scan's own grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brats_cache.common.errors import CheckpointError
from brats_train.data.context import neighbor_positions
from brats_train.models.checkpoint import SegmenterSpec
from brats_train.models.loaded_model import LoadedModel
from brats_train.models.looks import pool_looks
from brats_train.models.network import split_output
from brats_train.models.postprocessing import Postprocessing
from brats_train.models.sources import load_models
from brats_train.runtime.precision import autocast, choose_amp

__all__ = [
    "Ensemble",
    "ShareDone",
    "SlicePredictions",
    "average",
    "load_ensemble",
    "make_ensemble",
    "to_native",
]

SLICES_AT_ONCE = 32
ShareDone = Callable[[float], None]  # takes the share of a work that is done, from 0 to 1
_FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))


class SlicePredictions(NamedTuple):
    """What a model predicts for n slices, on its device.

    Attributes:
        masks: (n, K, S, S) float32, the probability of each region.
        labels: (n, L) float32, the probability of each label of the case; L is 0 for a model that
            tells none.
        overlaps: (K, M, M) int64, of the masks that each of M members, a network with a flip,
            would make alone, before components are dropped: see `agreement_of`.
    """

    masks: Tensor
    labels: Tensor
    overlaps: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Ensemble:
    """One or several trained models whose probabilities are averaged.

    Attributes:
        spec: The description that they have in common; see `load_ensemble` for what may differ.
        models: The networks, in evaluation mode, on the device.
        paths: The file of each network.
        fingerprints: Of each network, see `LoadedModel`.
        device: Where the models compute.
        amp: "bf16", "fp16" or "off".
    """

    spec: SegmenterSpec
    models: tuple[nn.Module, ...]
    paths: tuple[Path, ...]
    fingerprints: tuple[str, ...]
    device: torch.device
    amp: str

    def overruled(self, tta: bool | None, threshold: float | None) -> Ensemble:
        """A copy with other post-processing; None leaves what was chosen in training."""
        rules = self.spec.postprocessing
        if tta is not None:
            rules = replace(rules, tta=tta)
        if threshold is not None:
            rules = rules.with_threshold(threshold, self.spec.regions)
        return replace(self, spec=replace(self.spec, postprocessing=rules))

    def probabilities(self, images: np.ndarray, z_indices: np.ndarray, tta: bool = False) -> Tensor:
        """(n, K, S, S) float32 on the device, the masks of `predict`."""
        return self.predict(images, z_indices, tta).masks

    @torch.inference_mode()
    def predict(
        self,
        images: np.ndarray,
        z_indices: np.ndarray,
        tta: bool = False,
        progress: ShareDone = lambda share: None,
    ) -> SlicePredictions:
        """Predicts prepared slices of one case.

        The slices go through in chunks of a fixed size, so that equal slices give equal
        probabilities whoever asks.

        Args:
            images: (n, C, S, S) float16, as `prepare_images` makes them.
            z_indices: (n,) z of each slice, ascending; tells a model of context the neighbours.
            tta: Average over both flips and their combination (test-time augmentation).
            progress: Called with the share of the slices that is done, from 0 to 1, before the last
                are.

        Raises:
            CheckpointError: The models give NaN.
        """
        stacks = neighbor_positions(z_indices, self.spec.context)
        parts: list[SlicePredictions] = []
        for start in range(0, len(stacks), SLICES_AT_ONCE):
            progress(start / len(stacks))
            stack = stacks[start : start + SLICES_AT_ONCE]
            pixels = images[stack].reshape(len(stack), -1, *images.shape[2:])
            parts.append(self._chunk(torch.from_numpy(pixels), tta))
        if not parts:
            size, num = self.spec.preparation.size, len(self.spec.regions)
            return SlicePredictions(
                torch.empty((0, num, size, size), device=self.device),
                torch.empty((0, len(self.spec.labels)), device=self.device),
                torch.zeros((num, 1, 1), dtype=torch.int64, device=self.device),
            )
        whole = SlicePredictions(
            torch.cat([part.masks for part in parts]),
            torch.cat([part.labels for part in parts]),
            torch.stack([part.overlaps for part in parts]).sum(dim=0),
        )
        if not whole.masks.isfinite().all() or not whole.labels.isfinite().all():
            raise CheckpointError(
                f"{', '.join(map(str, self.paths))}: the model gives NaN instead of probabilities; "
                "its weights are no use. Train again, or name another --checkpoint."
            )
        return whole

    def _chunk(self, images: Tensor, tta: bool) -> SlicePredictions:
        pixels = images.to(self.device).float().contiguous(memory_format=torch.channels_last)
        flips = _FLIPS if tta else _FLIPS[:1]
        total: Tensor | None = None
        rules = [self.spec.postprocessing.rule(region) for region in self.spec.regions]
        thresholds = torch.tensor([rule.threshold for rule in rules], device=self.device)
        thresholds = thresholds[:, None, None]
        members: list[Tensor] = []
        labels = torch.zeros((len(pixels), len(self.spec.labels)), device=self.device)
        for model in self.models:
            for dims in flips:
                with autocast(self.amp, self.device):
                    logits, label_logits = split_output(model(pixels.flip(dims)))
                probability = logits.float().sigmoid().flip(dims)
                total = probability if total is None else total + probability
                members.append(probability >= thresholds)
                if label_logits is not None:
                    labels += label_logits.float().softmax(dim=1)
        assert total is not None
        num = len(members)
        first = self.spec.context * len(self.spec.preparation.modalities)
        brain = (pixels[:, first : first + len(self.spec.preparation.modalities)] != 0).any(dim=1)
        return SlicePredictions(total / num, labels / num, _overlaps(members, brain))


def load_ensemble(
    sources: Sequence[str | Path],
    device: torch.device,
    amp: str = "auto",
    checkpoint: str = "best",
) -> Ensemble:
    """Loads all networks of one or more sources as one model.

    Args:
        sources: What `sources.load_models` takes, one or more.
        device: Where to compute.
        amp: "auto", "bf16", "fp16" or "off".
        checkpoint: "best" or "last", of run directories.

    Raises:
        RunNotFoundError: A directory holds no model.
        CheckpointError: A file cannot be used, or two networks predict different regions or
            prepare their images differently.
    """
    loaded = [model for source in sources for model in load_models(source, checkpoint)]
    return average([make_ensemble(model, device, amp) for model in loaded])


def make_ensemble(loaded: LoadedModel, device: torch.device, amp: str = "auto") -> Ensemble:
    """Puts one network on a device. Arguments as `load_ensemble`."""
    network = loaded.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Ensemble(
        spec=loaded.spec,
        models=(network,),
        paths=(loaded.path,),
        fingerprints=(loaded.fingerprint,),
        device=device,
        amp=choose_amp(amp, device),
    )


def average(ensembles: Sequence[Ensemble]) -> Ensemble:
    """Puts several models together, whose probabilities are then averaged.

    Their post-processing is averaged too, see `Postprocessing.mean`.

    Raises:
        CheckpointError: Two of them predict different regions or take different images.
    """
    specs = [one.spec for one in ensembles]
    first = specs[0]
    for one in ensembles:
        spec, path = one.spec, one.paths[0]
        for what, value, expected in (
            ("regions", spec.regions, first.regions),
            ("preparation of the images", spec.preparation, first.preparation),
            ("context", spec.context, first.context),
            ("labels", spec.labels, first.labels),
            ("ways with missing modalities", spec.accepts_missing, first.accepts_missing),
        ):
            if value != expected:
                raise CheckpointError(
                    f"{path} and {ensembles[0].paths[0]} cannot be averaged: their {what} differ: "
                    f"{value} and {expected}."
                )
    postprocessing = Postprocessing.mean([spec.postprocessing for spec in specs], first.regions)
    return Ensemble(
        spec=replace(
            first, postprocessing=postprocessing, looks=pool_looks(spec.looks for spec in specs)
        ),
        models=tuple(model for one in ensembles for model in one.models),
        paths=tuple(path for one in ensembles for path in one.paths),
        fingerprints=tuple(mark for one in ensembles for mark in one.fingerprints),
        device=ensembles[0].device,
        amp=ensembles[0].amp,
    )


def _overlaps(members: Sequence[Tensor], brain: Tensor) -> Tensor:
    """`SlicePredictions.overlaps` of the masks (n, K, S, S) of each member, in (n, S, S) brain."""
    every = torch.stack(list(members)) & brain[:, None]
    by_region = every.permute(2, 0, 1, 3, 4).flatten(2)  # (K, M, voxels)
    counts = []
    for masks in by_region:
        # Exact up to 2^24 voxels in the masks of a chunk. Most of its voxels are in no mask at all.
        found = masks[:, masks.any(dim=0)].float()
        counts.append((found @ found.T).long())
    return torch.stack(counts)


def to_native(fitted: Tensor, height: int, width: int, fit: str) -> np.ndarray:
    """Puts probabilities on the slice's own grid.

    Args:
        fitted: (n, K, S, S) float32, on any device.
        height: Y, rows of a slice of the scan.
        width: X, columns of a slice of the scan.
        fit: "resize" is undone by bilinear interpolation with half-pixel centres, "pad" by cutting.

    Returns:
        (n, K, Y, X) float32 in host memory, 0 to 1.
    """
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
