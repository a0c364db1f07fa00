"""Where a model comes from: a run, a checkpoint, an exported folder, an ONNX file or the hub.

Every command and the Python API take a model by its source, and this module alone tells the kinds
of sources apart.
"""

from __future__ import annotations

from pathlib import Path

import xxhash

from brats_cache.common.errors import RunNotFoundError
from brats_train.models.checkpoint import load_network
from brats_train.models.exported_folder import WEIGHTS, is_exported, load_exported
from brats_train.models.hub import fetch_model, hub_name
from brats_train.models.loaded_model import LoadedModel
from brats_train.models.onnx_file import is_onnx, load_onnx
from brats_train.models.run_files import checkpoints_of

__all__ = [
    "absolute",
    "exported_folder_of",
    "fingerprint_of_file",
    "is_checkpoint",
    "is_run_dir",
    "load_models",
]


def load_models(source: str | Path, checkpoint: str = "best") -> list[LoadedModel]:
    """Reads the networks of a source, on the CPU.

    Args:
        source: A run directory, a checkpoint file, a folder or an ONNX file of `brats export`, or
            hf://owner/name.
        checkpoint: "best" or "last", of a run directory.

    Returns:
        One network, or those of the folds of a cross-validated run.

    Raises:
        RunNotFoundError: A directory holds no model.
        CheckpointError: A file cannot be used.
    """
    if folder := exported_folder_of(source):
        return load_exported(folder)
    path = Path(source)
    if is_onnx(path):
        return [load_onnx(path)]
    if not path.is_dir():
        return [_load_checkpoint(path, None)]
    files = checkpoints_of(path, checkpoint)
    if missing := [file for file in files.values() if not file.is_file()]:
        raise RunNotFoundError(
            f"{missing[0].parent}: holds no {missing[0].name}. Name a run directory of brats train "
            "or a folder of brats export."
        )
    return [_load_checkpoint(file, fold) for fold, file in files.items()]


def exported_folder_of(source: str | Path) -> Path | None:
    """The folder of an exported model, fetched where it lies on the hub; None for other sources.

    Its file of weights stands for the folder: `LoadedModel.path` can be loaded again.

    Raises:
        CheckpointError: It lies on the hub and cannot be had.
    """
    if name := hub_name(source):
        return fetch_model(name)
    path = Path(source)
    folder = path.parent if path.name == WEIGHTS else path
    return folder if folder.is_dir() and is_exported(folder) else None


def absolute(source: str | Path) -> str:
    """The source as it can be named from any folder."""
    return str(hub_name(source) or Path(source).resolve())


def is_checkpoint(source: str | Path) -> bool:
    """Whether a source is meant as a checkpoint file."""
    path = Path(source)
    return not (hub_name(source) or is_onnx(path)) and path.is_file()


def is_run_dir(source: str | Path) -> bool:
    """Whether a source is meant as a run directory: none of the other kinds."""
    path = Path(source)
    return not (hub_name(source) or path.is_file() or is_onnx(path) or is_exported(path))


def fingerprint_of_file(path: Path) -> str:
    """The fingerprint of a checkpoint: xxh3_64 of the file, 16 hex digits."""
    return xxhash.xxh3_64_hexdigest(path.read_bytes())


def _load_checkpoint(path: Path, fold: int | None) -> LoadedModel:
    spec, network, _ = load_network(path)
    return LoadedModel(
        spec=spec,
        network=network,
        path=path,
        fingerprint=fingerprint_of_file(path),
        fold=fold,
    )
