"""Checkpoints: one file that says everything needed to go on, or to segment a scan elsewhere.

A checkpoint holds tensors and plain values only, so that it is read without executing anything
(`weights_only=True`).
"""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brats_cache.errors import BratsError, printable
from brats_cache.files import write_atomically
from brats_cache.preprocess import Preparation

from .model import ModelConfig, build_model

__all__ = ["Segmenter", "load", "load_segmenter", "save"]

FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """What a model needs to be used: its shape, its regions, and how its images are prepared.

    regions       of each output channel
    threshold     probability from which a voxel belongs to a region
    label_scheme  of the training masks, for scans whose names do not tell theirs
    weights_from  where the encoder's first weights came from
    """

    model: ModelConfig
    regions: tuple[str, ...]
    preparation: Preparation
    label_scheme: str
    weights_from: str
    threshold: float = 0.5


def save(path: Path, segmenter: Segmenter, model: nn.Module, **state: Any) -> None:
    """Writes a checkpoint atomically. `state` holds plain values and tensors, such as the
    optimiser's state; `model` is not wrapped."""
    content = {
        "format_version": FORMAT_VERSION,
        "segmenter": asdict(segmenter),
        "model": model.state_dict(),
        **state,
    }
    write_atomically(path, lambda file: torch.save(content, file))


def load(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises `BratsError` for anything else."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BratsError(f"{path}: no such checkpoint. Train first, or name another.") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise BratsError(f"{path}: no readable checkpoint ({reason}).") from error
    except zipfile.BadZipFile as error:
        raise BratsError(f"{path}: a damaged checkpoint ({error}).") from error
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
