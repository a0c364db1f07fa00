"""One trained network as it was read from a file, whatever the file's format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from brats_train.models.checkpoint import SegmenterSpec

__all__ = ["LoadedModel"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A network and what it is.

    Attributes:
        spec: Its description, with its own post-processing.
        network: Takes (B, C, S, S) float32 pixels and returns (B, K, S, S) logits; in evaluation
            mode, on the CPU.
        path: The file that holds its weights.
        fingerprint: 16 hex digits, equal for equal content.
        fold: The fold that it was not trained on, None for an ordinary run.
    """

    spec: SegmenterSpec
    network: nn.Module
    path: Path
    fingerprint: str
    fold: int | None = None
