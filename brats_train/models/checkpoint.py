"""Checkpoints: one file that says everything needed to go on, or to segment a scan elsewhere.

A checkpoint holds tensors and plain values only, so that it is read without executing anything
(`weights_only=True`). Writing happens in a thread, from a snapshot, while training goes on.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brats_cache.common.errors import BratsError, printable
from brats_cache.imaging.preprocess import Preparation
from brats_train.models.unet import ModelConfig, build_model

__all__ = ["Segmenter", "load", "load_segmenter", "pack"]

FORMAT_VERSION = 1
_READING_ERRORS = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """What a model needs to be used: its shape, its regions, and how its images are prepared.

    regions       of each output channel
    label_scheme  of the training masks, for scans whose names do not tell theirs
    weights_from  where the encoder's first weights came from
    threshold     probability from which a voxel belongs to a region
    tta           whether probabilities are averaged over flips
    min_component_voxels  smaller connected components of a region are dropped; 0 for none
    """

    model: ModelConfig
    regions: tuple[str, ...]
    preparation: Preparation
    label_scheme: str
    weights_from: str
    threshold: float = 0.5
    tta: bool = False
    min_component_voxels: int = 0


def pack(segmenter: Segmenter, model: Mapping[str, Tensor], **state: Any) -> dict[str, Any]:
    """The content of a checkpoint: the model's state dict, unwrapped, and whatever `state` training
    needs to go on, plain values and tensors. Tensors are copied, where they are."""
    content = {"format_version": FORMAT_VERSION, "segmenter": asdict(segmenter), "model": model}
    copied = _copied({**content, **state})
    assert isinstance(copied, dict)
    return copied


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises `BratsError` for anything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BratsError(f"{path}: no such checkpoint. Train first, or name another.") from None
    except _READING_ERRORS as error:
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
        if isinstance(error, pickle.UnpicklingError):  # torch's advice is to trust the file
            reason = "it holds more than tensors and plain values, or is no such file at all"
        raise BratsError(f"{path}: no readable checkpoint ({reason}).") from error
    if not isinstance(content, dict) or "segmenter" not in content:
        raise BratsError(f"{path}: a torch file, but no checkpoint of brats train.")
    if content.get("format_version") != FORMAT_VERSION:
        version = printable(content.get("format_version"))
        raise BratsError(f"{path}: checkpoint version {version}, expected {FORMAT_VERSION}.")
    return content


def load_segmenter(path: Path) -> tuple[Segmenter, nn.Module, dict[str, Any]]:
    """The description, the model with its weights, in evaluation mode, and the whole content."""
    content = load(path)
    try:
        described = dict(content["segmenter"])
        preparation = dict(described["preparation"])
        preparation["modalities"] = tuple(preparation["modalities"])
        described["preparation"] = Preparation(**preparation)
        described["model"] = ModelConfig(**described["model"])
        described["regions"] = tuple(described["regions"])
        segmenter = Segmenter(**described)
        model = build_model(segmenter.model)
        model.load_state_dict(content["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = printable(str(error).splitlines()[0])
        raise BratsError(f"{path}: its parts do not fit this program ({reason}).") from error
    return segmenter, model.eval(), content


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value
