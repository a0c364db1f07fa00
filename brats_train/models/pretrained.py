"""Encoder weights: ImageNet weights from the hub, or a file.

ImageNet weights are made for RGB. As in smp and timm the first convolution of an encoder with n
input channels takes the RGB weights in turn, R G B R ..., scaled by 3 / n, so that its output keeps
its size; with one channel it takes their sum.
"""

from __future__ import annotations

import re
import warnings
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from brats_cache.common.errors import BratsError, CheckpointError, first_line, printable
from brats_cache.common.text import first_few
from brats_train.models.network import TIMM_PREFIX

__all__ = ["WeightsNotFoundError", "load_encoder_weights"]

_WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors")
_HUB_TIMEOUT_SECONDS = 5
_NUM_KEYS_SHOWN = 4
_MAX_QUOTED = 100  # characters of what a file asks for


class WeightsNotFoundError(BratsError, FileNotFoundError):
    """ImageNet weights that are neither on this machine nor can be downloaded."""


def load_encoder_weights(model: nn.Module, encoder_name: str, source: str) -> str:
    """Fills the encoder of a model made by `build_model`, in place.

    Args:
        model: A network of `build_model`.
        encoder_name: Its encoder.
        source: "none" leaves it as it is; "imagenet" takes the weights that smp, or for its "tu-"
            encoders timm, publishes, from the cache of huggingface_hub or else from its hub;
            anything else is a .pth, .pt or .safetensors file with the state of the encoder, of an
            smp network that holds it, or of the torchvision or timm model of that name.

    Returns:
        Where the weights came from: "none (random initialisation)",
        "imagenet (smp-hub/resnet34.imagenet)" or "file NAME xxh3:CHECKSUM" (xxh3_64, hexadecimal).

    Raises:
        BratsError: There are no such weights; the model is then unchanged.
        WeightsNotFoundError: They cannot be downloaded; likewise.
        CheckpointError: The file cannot be read or does not fit; the model is then unchanged.
    """
    if source == "none":
        return "none (random initialisation)"
    location = _imagenet_location(encoder_name) if source == "imagenet" else {}
    path = _fetch(encoder_name, location) if location else Path(source)
    _fill_encoder(model, encoder_name, _encoder_state(_read_weights(path), path), path)
    if location:
        return f"imagenet ({location['repo_id']})"
    with path.open("rb") as file:
        return f"file {path.name} xxh3:{file_digest(file, xxhash.xxh3_64).hexdigest()}"


def _imagenet_location(encoder_name: str) -> dict[str, str]:
    """The file with an encoder's ImageNet weights on the hub, in hf_hub_download's words."""
    file = {"filename": "model.safetensors"}
    if encoder_name.startswith(TIMM_PREFIX):
        import timm

        settings = timm.get_pretrained_cfg(encoder_name.removeprefix(TIMM_PREFIX))
        if settings is not None and settings.hf_hub_id:
            return {**file, "repo_id": settings.hf_hub_id}
        others = "weights of another name, such as those that timm.list_pretrained() shows"
    else:
        from segmentation_models_pytorch.encoders import encoders

        published = encoders[encoder_name]["pretrained_settings"]
        if "imagenet" in published:
            where = published["imagenet"]
            return {**file, "repo_id": where["repo_id"], "revision": where["revision"]}
        others = f"another encoder; smp has {', '.join(published)} weights of this one"
    raise BratsError(
        f"there are no ImageNet weights of {encoder_name}: choose {others}, "
        "--encoder-weights none, or --encoder-weights PATH."
    )


def _fetch(encoder_name: str, location: dict[str, str]) -> Path:
    """The file on the hub, from the local cache or downloaded into it."""
    import huggingface_hub as hub
    from huggingface_hub.constants import HF_HUB_CACHE

    where: dict[str, Any] = {**location}
    try:
        return Path(hub.hf_hub_download(**where, local_files_only=True))
    except FileNotFoundError:
        pass
    url = hub.hf_hub_url(**where)
    try:
        # hf_hub_download tries a hub it cannot reach six times, for up to a minute and a half. One
        # question asked first, without retries, tells at once whether there is a hub to talk to.
        hub.get_hf_file_metadata(url, timeout=_HUB_TIMEOUT_SECONDS)
        return Path(hub.hf_hub_download(**where))
    except Exception as error:  # the hub's transport, and so its exceptions, change by version
        raise WeightsNotFoundError(
            f"the ImageNet weights of {encoder_name} cannot be had: not in the cache "
            f"{HF_HUB_CACHE}, and {url} failed ({first_line(error)}).\n"
            f"Either train from random weights with --encoder-weights none, or fetch that file"
            f"{_other_source(encoder_name)} on a machine that has a network, copy it here and give "
            f"--encoder-weights PATH."
        ) from error


def _other_source(encoder_name: str) -> str:
    """Where torchvision publishes weights that fit too, "" for nowhere."""
    from torchvision.models import get_model_weights

    if not re.fullmatch(r"resnet\d+", encoder_name):
        return ""
    return f" or {get_model_weights(encoder_name)['IMAGENET1K_V1'].url}"


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
    others = [str(key) for key, value in content.items() if not _is_plain_tensor(value)]
    if others:
        raise CheckpointError(
            f"{printable(path)}: holds other things than plain tensors ({_shown(others)}); "
            f"expected a plain state dict. A checkpoint of a training run is for --init-from."
        )
    return {str(key): value for key, value in content.items()}


def _is_plain_tensor(value: object) -> bool:
    """Whether a value is a tensor with a number in memory for each element: neither sparse,
    quantized nor nested, and no shape without data."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_nested or value.is_meta)
    )


def _reading_fault(error: Exception) -> str:
    """What is wrong with a file that the reader refused, without torch's advice to trust it."""
    if isinstance(error, OSError):
        return str(error)
    needed = re.search(r"GLOBAL (\S+)", str(error))
    if needed:
        code = printable(needed[1][:_MAX_QUOTED])
        return f"it is a pickle that needs code, {code}, and none is run from a file"
    return (
        f"it is damaged, cut short or in another format ({type(error).__name__}); if it should be "
        f"a weights file, fetch or copy it again"
    )


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
    """Loads `state`, refusing whatever is missing, too much or of another shape."""
    encoder = model.get_submodule("encoder")
    own = encoder.state_dict()
    is_timm = encoder_name.startswith(TIMM_PREFIX)
    if is_timm:
        state = _named_as_in_features(state, own)
    # Batch norm's step counters are absent from files of the first torchvision releases.
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    state = counters | state
    stems = [key for key in own if key in state and _is_rgb_stem(state[key], own[key])]
    state |= {key: _for_channels(state[key], own[key].shape[1]) for key in stems}
    misshapen = [key for key in own if key in state and state[key].shape != own[key].shape]
    faults = {
        "missing": [key for key in own if key not in state],
        # The rest of a timm model, such as its classifier, is no part of the encoder.
        "not known": [key for key in state if key not in own and not is_timm],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}" for key in misshapen
        ],
    }
    found = "; ".join(
        f"{len(keys)} {what} ({_shown(keys)})" for what, keys in faults.items() if keys
    )
    if found:
        raise CheckpointError(f"{printable(path)}: not the weights of {encoder_name}: {found}")
    encoder.load_state_dict({key: state[key] for key in own})


def _named_as_in_features(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a timm model under the names of the encoder that smp makes of it.

    The encoder holds timm's feature extractor as "model", which writes names such as stages.0 with
    an underscore.
    """
    plain = {key.removeprefix("model.").replace(".", "_"): key for key in own}
    return {
        plain.get(key.removeprefix("model.").replace(".", "_"), key): value
        for key, value in state.items()
    }


def _is_rgb_stem(weight: Tensor, own: Tensor) -> bool:
    """Whether `weight` is that of a convolution of RGB and `own` one of other channels."""
    if not weight.ndim == own.ndim == 4:
        return False
    return weight.shape[1] == 3 != own.shape[1] and weight[:, 0].shape == own[:, 0].shape


def _for_channels(rgb: Tensor, num_channels: int) -> Tensor:
    """(N, 3, h, w) weights of RGB as (N, C, h, w) weights of any number of channels."""
    if num_channels == 1:
        return rgb.sum(1, keepdim=True)
    in_turn = [channel % 3 for channel in range(num_channels)]
    return rgb[:, in_turn] * (3 / num_channels)


def _shown(keys: list[str]) -> str:
    return printable(first_few(keys, _NUM_KEYS_SHOWN))
