"""The checkpoint file: a model's weights, its description, and the state of its training.

A checkpoint holds tensors and plain values only, so that it is read without executing anything
(`weights_only=True`). Among them is the digest of all the others, which every reading compares.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from brats_cache.common.errors import CheckpointError, first_line, print_message, printable
from brats_cache.common.files import open_regular_file
from brats_cache.discovery.namings import MODALITIES
from brats_cache.imaging.labels import REGIONS, SCHEMES
from brats_cache.imaging.preprocess import FITS, NORMALIZATIONS, Preparation
from brats_train.models.content_digest import content_digest
from brats_train.models.looks import ScanLook, unpack_look
from brats_train.models.network import ModelConfig, build_model
from brats_train.models.postprocessing import Postprocessing

__all__ = [
    "SegmenterSpec",
    "load",
    "load_network",
    "map_tensors",
    "pack",
    "save",
    "unpack_spec",
]

FORMAT_VERSION = 2
_VERSIONS = (1, FORMAT_VERSION)  # version 1 had no digest
_noted: set[Path] = set()  # files of version 1 that were named already


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec:
    """Description of a trained model: its network, its regions, and how its images are prepared.

    Attributes:
        model: The shape of the network.
        regions: The region of each output channel, of "wt", "tc" and "et".
        preparation: How the images were made that it was trained on.
        label_scheme: Scheme of the training masks, for scans whose names do not tell theirs.
        weights_from: Where the encoder's first weights came from.
        context: Neighbours of a slice on each side that the network sees with it.
        accepts_missing: Whether it was trained to do without a modality, see `data.channels`.
        postprocessing: What follows the network.
        labels: The classes of whole cases that it tells apart, empty for none.
        looks: How some of its training scans looked, empty where that is not known.
    """

    model: ModelConfig
    regions: tuple[str, ...]
    preparation: Preparation
    label_scheme: str
    weights_from: str
    context: int = 0
    accepts_missing: bool = False
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    labels: tuple[str, ...] = ()
    looks: tuple[ScanLook, ...] = ()


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
    copied = map_tensors({**content, **state}, lambda tensor: tensor.detach().clone())
    assert isinstance(copied, dict)
    return copied


def save(content: Mapping[str, Any], file: BinaryIO) -> None:
    """Writes the content of a checkpoint, as `pack` or `load` gives it, with its digest.

    Args:
        content: Tensors may be on any device.
        file: Open for writing.
    """
    stamped = {**content, "format_version": FORMAT_VERSION}
    torch.save({**stamped, "digest": content_digest(stamped)}, file)


def load(path: Path) -> dict[str, Any]:
    """Reads the content of a checkpoint, tensors on the CPU, and compares it with its digest.

    A file of an older version, which has no digest, is read with a note on standard error.

    Returns:
        The content without the digest.

    Raises:
        CheckpointError: There is no such file, or it is no checkpoint of this program, or not as
            it was written.
    """
    content = _read(path)
    if not isinstance(content, dict) or "segmenter" not in content:
        raise CheckpointError(f"{printable(path)}: a torch file, but no checkpoint of brats train.")
    version = content.get("format_version")
    if version not in _VERSIONS:
        expected = f"{_VERSIONS[0]} to {FORMAT_VERSION}"
        raise CheckpointError(
            f"{printable(path)}: checkpoint version {printable(version)}, expected {expected}."
        )
    if version == 1 and "digest" not in content:
        _note_missing_digest(path)
        return content
    digest = content.pop("digest", None)
    try:
        is_whole = digest == content_digest(content)
    except (TypeError, ValueError, RuntimeError):  # what no checkpoint holds
        is_whole = False
    if not is_whole:
        raise CheckpointError(
            f"{printable(path)}: damaged: its content does not have the digest that it was written "
            "with. Copy it again from where it is whole, name another, or train again."
        )
    return content


def _read(path: Path) -> object:
    """What torch reads from a file."""
    try:
        with open_regular_file(path) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
            _check_records(file)
            return content
    except FileNotFoundError:
        raise CheckpointError(
            f"{printable(path)}: no such checkpoint. Train first, or name another."
        ) from None
    except Exception as error:  # a damaged pickle makes the reader raise nearly anything
        text = error.strerror if isinstance(error, OSError) else str(error)
        reason = printable(text.splitlines()[0] if text else type(error).__name__)
        if isinstance(error, pickle.UnpicklingError):  # torch's advice is to trust the file
            reason = "it holds more than tensors and plain values, or is no such file at all"
        raise CheckpointError(f"{printable(path)}: no readable checkpoint ({reason}).") from error


def _check_records(file: BinaryIO) -> None:
    """Compares the parts of the archive other than tensors with their CRC, which torch ignores.

    A changed byte there can leave the content equal, and so its digest. Raises BadZipFile.
    """
    if not zipfile.is_zipfile(file):  # torch's format before 1.6
        return
    with zipfile.ZipFile(file) as archive:
        for record in archive.infolist():
            if "/data/" not in record.filename:
                archive.read(record)


def _note_missing_digest(path: Path) -> None:
    """Says once that a checkpoint is of an older version."""
    if path not in _noted and os.environ.get("RANK", "0") == "0":
        _noted.add(path)
        print_message(
            f"{printable(path)}: written by an older version without a digest, so damage to it "
            "would not be noticed.",
            prefix="Note: ",
        )


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
        spec = unpack_spec(content["segmenter"])
        model = build_model(spec.model)
        ema = content.get("averaged")
        model.load_state_dict(ema["module"] if ema else content["model"])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: its parts do not fit this program ({first_line(error)})."
        ) from error
    return spec, model.eval(), content


def unpack_spec(packed: Mapping[str, Any]) -> SegmenterSpec:
    """Reads what `asdict` gave. Raises KeyError, TypeError or ValueError for anything else."""
    fields = dict(packed)
    preparation, model = dict(fields["preparation"]), dict(fields["model"])
    preparation["modalities"] = tuple(preparation["modalities"])
    if not model.get("num_grades"):  # written by versions before this field was removed
        model.pop("num_grades", None)
    fields["preparation"] = Preparation(**preparation)
    fields["model"] = ModelConfig(**model)
    fields["regions"] = tuple(fields["regions"])
    fields["labels"] = tuple(fields.get("labels", ()))
    num_modalities = len(preparation["modalities"])
    fields["looks"] = tuple(unpack_look(one, num_modalities) for one in fields.get("looks", ()))
    if "postprocessing" in fields:
        fields["postprocessing"] = Postprocessing.unpack(fields["postprocessing"])
    else:  # written by an older version
        flat = {name: fields.pop(name) for name in ("threshold", "tta", "min_component_voxels")}
        fields["postprocessing"] = Postprocessing.unpack_flat(flat, fields["regions"])
    spec = SegmenterSpec(**fields)
    if not _is_consistent(spec):
        raise ValueError("its description is of no model of this program")
    return spec


def _is_consistent(spec: SegmenterSpec) -> bool:
    """Whether the values are known ones and the channels of the network follow from them."""
    preparation, regions, context = spec.preparation, spec.regions, spec.context
    modalities = preparation.modalities
    return (
        len({*modalities} & {*MODALITIES}) == len(modalities) > 0
        and type(preparation.size) is int
        and preparation.size > 0
        and preparation.fit in FITS
        and preparation.normalize in NORMALIZATIONS
        and len({*regions} & {*REGIONS}) == len(regions) == spec.model.classes
        and type(context) is int
        and context >= 0
        and spec.model.in_channels == len(modalities) * (2 * context + 1)
        and spec.label_scheme in SCHEMES
        and type(spec.accepts_missing) is bool
    )


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Copies nested mappings, lists and tuples, each tensor replaced by what `function` returns."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(inner, function) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(inner, function) for inner in value)
    return value
