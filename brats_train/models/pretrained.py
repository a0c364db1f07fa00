"""Encoder weights: ImageNet weights from the hub, or a file."""

from __future__ import annotations

import re
import warnings
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from brats_cache.common.errors import BratsError, CheckpointError, printable
from brats_cache.common.text import first_few

__all__ = ["load_encoder_weights"]

_WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors")
_HUB_TIMEOUT_SECONDS = 5
_NUM_KEYS_SHOWN = 4


def load_encoder_weights(model: nn.Module, source: str) -> str:
    """Fills the encoder of a model made by `build_model`, in place.

    Args:
        model: A U-Net of `build_model`.
        source: "none" leaves it as it is; "imagenet" takes the weights smp publishes, from the
            cache of huggingface_hub or else from its hub; anything else is a .pth, .pt or
            .safetensors file with the state of a torchvision ResNet, of an smp encoder or of an
            smp U-Net.

    Returns:
        Where the weights came from: "none (random initialisation)",
        "imagenet (smp-hub/resnet34.imagenet)" or "file NAME xxh3:CHECKSUM" (xxh3_64, hexadecimal).

    Raises:
        BratsError: The weights cannot be downloaded; the model is then unchanged.
        CheckpointError: The file cannot be read or does not fit; the model is then unchanged.
    """
    if source == "none":
        return "none (random initialisation)"
    encoder_name = str(model.name).removeprefix("u-")
    path = _fetch_imagenet(encoder_name) if source == "imagenet" else Path(source)
    _fill_encoder(model, encoder_name, _encoder_state(_read_weights(path), path), path)
    if source == "imagenet":
        return f"imagenet ({_hub_settings(encoder_name)['repo_id']})"
    with path.open("rb") as file:
        return f"file {path.name} xxh3:{file_digest(file, xxhash.xxh3_64).hexdigest()}"


def _hub_settings(encoder_name: str) -> dict[str, str]:
    """Repository and revision of smp's ImageNet weights: keys repo_id and revision."""
    from segmentation_models_pytorch.encoders import encoders

    return encoders[encoder_name]["pretrained_settings"]["imagenet"]


def _fetch_imagenet(encoder_name: str) -> Path:
    """The file smp itself would load, from the local cache or downloaded into it."""
    import huggingface_hub as hub
    from huggingface_hub.constants import HF_HUB_CACHE
    from torchvision.models import get_model_weights

    settings = _hub_settings(encoder_name)
    location: dict[str, Any] = {**settings, "filename": "model.safetensors"}
    try:
        return Path(hub.hf_hub_download(**location, local_files_only=True))
    except FileNotFoundError:
        pass
    url = hub.hf_hub_url(**location)
    try:
        # hf_hub_download tries a hub it cannot reach six times, for up to a minute and a half. One
        # question asked first, without retries, tells at once whether there is a hub to talk to.
        hub.get_hf_file_metadata(url, timeout=_HUB_TIMEOUT_SECONDS)
        return Path(hub.hf_hub_download(**location))
    except Exception as error:  # the hub's transport, and so its exceptions, change by version
        torchvision_url = get_model_weights(encoder_name)["IMAGENET1K_V1"].url
        raise BratsError(
            f"the ImageNet weights of {encoder_name} cannot be had: not in the cache "
            f"{HF_HUB_CACHE}, and {url} failed ({_first_line(error)}).\n"
            f"Either train from random weights with --encoder-weights none, or fetch that file "
            f"or {torchvision_url} on a machine that has a network, copy it here and give "
            f"--encoder-weights PATH."
        ) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in `path` by name. Nothing in the file is executed."""
    if path.suffix not in _WEIGHT_SUFFIXES:
        raise CheckpointError(
            f"--encoder-weights {printable(path)}: expected imagenet, none or a file that ends in "
            f"{', '.join(_WEIGHT_SUFFIXES)}"
        )
    if not path.is_file():
        raise CheckpointError(f"--encoder-weights {printable(path)}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            with warnings.catch_warnings():  # torch warns of what the error below says
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can make the reader raise nearly anything
        raise CheckpointError(
            f"{printable(path)}: cannot be read as weights: {_reading_fault(error)}. Expected "
            f"a state dict saved by torch.save or safetensors."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{printable(path)}: holds one {type(content).__name__}; expected a state dict, "
            f"tensors by name"
        )
    other_types = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if other_types:
        raise CheckpointError(
            f"{printable(path)}: holds other things than tensors ({_shown(other_types)}); expected "
            f"a plain state dict. A checkpoint of a training run is for --init-from."
        )
    return {str(key): value for key, value in content.items()}


def _reading_fault(error: Exception) -> str:
    """What is wrong with a file that the reader refused, without torch's advice to trust it."""
    if isinstance(error, OSError):
        return str(error)
    needed = re.search(r"GLOBAL (\S+)", str(error))
    if needed:
        return (
            f"it is a pickle that needs code, {printable(needed[1])}, and none is run from a file"
        )
    return (
        f"it is damaged, cut short or in another format ({type(error).__name__}); if it should be "
        f"a weights file, fetch or copy it again"
    )


def _first_line(error: Exception) -> str:
    return printable(next(iter(str(error).strip().splitlines()), type(error).__name__))


def _encoder_state(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The part of `state` that belongs to the encoder, under the encoder's own names."""
    prefix = "encoder."
    inner = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    encoder = inner or {key: value for key, value in state.items() if not key.startswith("fc.")}
    if not encoder:
        raise CheckpointError(f"{printable(path)}: holds no weights of an encoder")
    return encoder


def _fill_encoder(
    model: nn.Module, encoder_name: str, state: dict[str, Tensor], path: Path
) -> None:
    from segmentation_models_pytorch.encoders import get_encoder

    encoder = model.get_submodule("encoder")
    in_channels = encoder.get_parameter("conv1.weight").shape[1]
    stem = state.get("conv1.weight")
    is_rgb = stem is not None and stem.ndim == 4 and stem.shape[1] == 3
    if is_rgb and in_channels != 3:
        rgb_encoder = get_encoder(encoder_name, in_channels=3, weights=None)
        _load_exactly(rgb_encoder, state, encoder_name, path)
        rgb_encoder.set_in_channels(in_channels, pretrained=True)
        encoder.load_state_dict(rgb_encoder.state_dict())
    else:
        _load_exactly(encoder, state, encoder_name, path)


def _load_exactly(
    encoder: nn.Module, state: dict[str, Tensor], encoder_name: str, path: Path
) -> None:
    """Load `state`, refusing whatever is missing, too much or of another shape."""
    own = encoder.state_dict()
    # Batch norm's step counters are absent from files of the first torchvision releases.
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    state = counters | state
    misshapen = [
        f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    faults = {
        "missing": [key for key in own if key not in state],
        "not known": [key for key in state if key not in own],
        "of another shape": misshapen,
    }
    found = "; ".join(
        f"{len(keys)} {what} ({_shown(keys)})" for what, keys in faults.items() if keys
    )
    if found:
        raise CheckpointError(
            f"{printable(path)}: not the weights of {encoder_name} with "
            f"{own['conv1.weight'].shape[1]} input channels: {found}"
        )
    encoder.load_state_dict(state)


def _shown(keys: list[str]) -> str:
    return printable(first_few(keys, _NUM_KEYS_SHOWN))
