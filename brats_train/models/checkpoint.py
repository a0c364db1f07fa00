"""The checkpoint file: a model's weights, its description, and the state of its training.

A checkpoint holds tensors and plain values only, so that it is read without executing anything
(`weights_only=True`).
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

from brats_cache.common.errors import CheckpointError, printable
from brats_cache.imaging.preprocess import Preparation
from brats_train.models.unet import ModelConfig, build_model

__all__ = ["SegmenterSpec", "load", "load_network", "pack"]

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
class SegmenterSpec:
    """Description of a trained model: its network, its regions, and how its images are prepared.

    Attributes:
        model: The shape of the network.
        regions: The region of each output channel, of "wt", "tc" and "et".
        preparation: How the images were made that it was trained on.
        label_scheme: Scheme of the training masks, for scans whose names do not tell theirs.
        weights_from: Where the encoder's first weights came from.
        threshold: Probability from which a voxel belongs to a region, 0 to 1.
        tta: Whether probabilities are averaged over flips (test-time augmentation).
        min_component_voxels: Smaller connected components of a region are dropped; 0 for none.
    """

    model: ModelConfig
    regions: tuple[str, ...]
    preparation: Preparation
    label_scheme: str
    weights_from: str
    threshold: float = 0.5
    tta: bool = False
    min_component_voxels: int = 0


def pack(spec: SegmenterSpec, model: Mapping[str, Tensor], **state: Any) -> dict[str, Any]:
    """Puts together the content of a checkpoint.

    Args:
        spec: The description of the model.
        model: Its state dict, of the network itself and not of a wrapper of it.
        **state: What training needs to resume, plain values and tensors.

    Returns:
        The content, its tensors copied on their device.
    """
    content = {"format_version": FORMAT_VERSION, "segmenter": asdict(spec), "model": model}
    copied = _copied({**content, **state})
    assert isinstance(copied, dict)
    return copied


def load(path: Path) -> dict[str, Any]:
    """Reads the content of a checkpoint, tensors on the CPU.

    Raises:
        CheckpointError: There is no such file, or it is no checkpoint of this program.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such checkpoint. Train first, or name another."
        ) from None
    except _READING_ERRORS as error:
        reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
        if isinstance(error, pickle.UnpicklingError):  # torch's advice is to trust the file
            reason = "it holds more than tensors and plain values, or is no such file at all"
        raise CheckpointError(f"{path}: no readable checkpoint ({reason}).") from error
    if not isinstance(content, dict) or "segmenter" not in content:
        raise CheckpointError(f"{path}: a torch file, but no checkpoint of brats train.")
    if content.get("format_version") != FORMAT_VERSION:
        version = printable(content.get("format_version"))
        raise CheckpointError(f"{path}: checkpoint version {version}, expected {FORMAT_VERSION}.")
    return content


def load_network(path: Path) -> tuple[SegmenterSpec, nn.Module, dict[str, Any]]:
    """Reads a checkpoint and builds its network, in evaluation mode, on the CPU.

    The weights are those that validation saw: the moving average (EMA) where the run kept one,
    which `last.pt` holds beside the weights that training goes on with.

    Returns:
        The description of the model, the network, and the whole content of the file.

    Raises:
        CheckpointError: As `load`, or its parts do not fit this program.
    """
    content = load(path)
    try:
        spec = _unpack_spec(content["segmenter"])
        model = build_model(spec.model)
        ema = content.get("averaged")
        model.load_state_dict(ema["module"] if ema else content["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = printable(str(error).splitlines()[0])
        raise CheckpointError(f"{path}: its parts do not fit this program ({reason}).") from error
    return spec, model.eval(), content


def _unpack_spec(packed: Mapping[str, Any]) -> SegmenterSpec:
    """Undoes `asdict`. Raises KeyError, TypeError or ValueError for anything else."""
    fields = dict(packed)
    preparation, model = dict(fields["preparation"]), dict(fields["model"])
    preparation["modalities"] = tuple(preparation["modalities"])
    if not model.get("num_grades"):  # written by versions before this field was removed
        model.pop("num_grades", None)
    fields["preparation"] = Preparation(**preparation)
    fields["model"] = ModelConfig(**model)
    fields["regions"] = tuple(fields["regions"])
    return SegmenterSpec(**fields)


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(inner) for inner in value)
    return value
