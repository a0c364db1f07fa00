"""A model as a folder in Hugging Face's layout: model.safetensors, config.json, README.md.

Nothing in it is executed. config.json is written last, so that a folder that has one is complete,
and holds a digest of the description and of every weight, which reading compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from brats_cache.common.errors import BratsError, CheckpointError, first_line, printable
from brats_cache.common.files import read_json, write_atomically
from brats_train.models.content_digest import content_digest
from brats_train.models.description import FORMAT, Description, canonical_json
from brats_train.models.loaded_model import LoadedModel
from brats_train.models.network import build_model

__all__ = [
    "CARD",
    "CONFIG",
    "WEIGHTS",
    "has_description",
    "is_exported",
    "load_exported",
    "read_description",
    "write_exported",
]

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_AGAIN = "Copy or download the folder again, or export the model again with brats export."


def is_exported(path: Path) -> bool:
    """Whether a folder is meant as an exported model, though it may not be whole."""
    return (path / WEIGHTS).exists() or has_description(path)


def has_description(path: Path) -> bool:
    """Whether a folder holds the config.json of an exported model, and not another's."""
    try:
        config = read_json(path / CONFIG)
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("format") == FORMAT


def write_exported(
    folder: Path, models: Sequence[LoadedModel], description: Description, card: str
) -> None:
    """Writes the folder's files; those that are there are replaced.

    Args:
        folder: Made where it is missing.
        models: The networks.
        description: Of these models.
        card: Content of README.md.

    Raises:
        BratsError: The folder cannot be written.
    """
    from safetensors.torch import save

    weights = _state_of(models)
    config = description.pack()
    digest = _digest(config, weights)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)  # no old one beside new weights
    except OSError as error:
        raise BratsError(f"{printable(folder)}: cannot be made ({error.strerror}).") from error
    write_atomically(folder / WEIGHTS, save(weights, metadata={"format": "pt"}))
    write_atomically(folder / CARD, card.encode())
    text = json.dumps({**config, "digest": digest}, indent=2) + "\n"
    write_atomically(folder / CONFIG, text.encode())


def read_description(folder: Path) -> Description:
    """Reads what an exported folder says of its model, without the weights.

    Raises:
        CheckpointError: There is no such description.
    """
    return _read_config(folder)[0]


def load_exported(folder: Path) -> list[LoadedModel]:
    """Reads an exported folder and builds its networks.

    Returns:
        The networks, in evaluation mode, on the CPU.

    Raises:
        CheckpointError: A file is missing, or not as it was written, or does not fit this program.
    """
    description, config, digest = _read_config(folder)
    path = folder / WEIGHTS
    weights = _read_weights(path)
    if digest != _digest(config, weights):
        raise CheckpointError(
            f"{printable(folder)}: damaged or changed: {CONFIG} and {WEIGHTS} do not have the "
            f"digest that they were exported with. {_AGAIN}"
        )
    models = []
    for number, member in enumerate(description.members):
        spec = description.member_spec(number)
        prefix = _prefix(number, len(description.members))
        state = {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }
        try:
            network = build_model(spec.model)
            network.load_state_dict(state)
        except (ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{printable(path)}: its weights do not fit this program ({first_line(error)})."
            ) from error
        models.append(
            LoadedModel(
                spec=spec,
                network=network.eval(),
                path=path,
                fingerprint=member.fingerprint,
                fold=member.fold,
            )
        )
    return models


def _read_config(folder: Path) -> tuple[Description, dict[str, Any], object]:
    """The description, what its digest was computed of, and the digest."""
    path = folder / CONFIG
    try:
        config = read_json(path)
        digest = config.pop("digest")
        return Description.unpack(config), config, digest
    except FileNotFoundError:
        raise CheckpointError(
            f"{printable(folder)}: an exported model without {CONFIG}, which is written last, so "
            f"it is not complete. {_AGAIN}"
        ) from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise CheckpointError(
            f"{printable(path)}: does not describe a model of brats export ({reason}). {_AGAIN}"
        ) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"{printable(path)}: no such file. {_AGAIN}")
    try:
        return load_file(path)
    except Exception as error:  # safetensors has errors of its own, beside those of the disk
        pointer = " A clone with git needs git-lfs to bring the weights." if _is_lfs(path) else ""
        raise CheckpointError(
            f"{printable(path)}: no readable weights ({first_line(error)}).{pointer} {_AGAIN}"
        ) from error


def _is_lfs(path: Path) -> bool:
    """Whether a file is what git leaves in place of a large one without git-lfs."""
    try:
        with path.open("rb") as file:
            return file.read(30).startswith(b"version https://git-lfs")
    except OSError:
        return False


def _state_of(models: Sequence[LoadedModel]) -> dict[str, Tensor]:
    """The weights of all networks by name; those of a single one have smp's own names."""
    return {
        _prefix(number, len(models)) + name: tensor.detach().cpu().contiguous()
        for number, model in enumerate(models)
        for name, tensor in model.network.state_dict().items()
    }


def _prefix(number: int, num_members: int) -> str:
    return "" if num_members == 1 else f"members.{number}."


def _digest(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """The digest of a description and of weights, whatever the order of their names."""
    in_order = {name: weights[name] for name in sorted(weights)}
    return content_digest({"config": canonical_json(config), "weights": in_order})
