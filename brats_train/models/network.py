"""The network: any architecture of segmentation_models_pytorch (smp) with any of its encoders.

`build_model` downloads and reads nothing: a model that is about to be filled from a checkpoint
needs no ImageNet weights. `pretrained.load_encoder_weights` fills the encoder of a new model.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brats_cache.common.errors import BratsError, first_line
from brats_cache.common.text import count_of

__all__ = ["TIMM_PREFIX", "ModelConfig", "build_model", "split_output", "try_model"]

TIMM_PREFIX = "tu-"  # smp's word for the encoders of timm


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of the network.

    Attributes:
        in_channels: Channels of a sample: modalities, times the slices of its context.
        classes: Number of regions K, one logit each.
        num_labels: Labels L of whole cases that a second head on the encoder tells apart, or 0.
        architecture: A decoder of smp, such as "Unet", "UnetPlusPlus" or "FPN"; case is ignored.
        encoder: An encoder of smp, or "tu-" and the name of one of timm.

    Raises:
        ValueError: `in_channels` or `classes` is less than 1.
    """

    in_channels: int
    classes: int
    architecture: str = "Unet"
    encoder: str = "resnet34"
    num_labels: int = 0

    def __post_init__(self) -> None:
        for field in ("in_channels", "classes"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; expected at least 1")


def build_model(config: ModelConfig) -> nn.Module:
    """Builds a network with random weights, drawn from torch's global generator.

    Returns:
        A network that takes (B, C, H, W) float images, H and W multiples of 32, and returns mask
        logits (B, K, H, W), or with labels a pair, see `split_output`.

    Raises:
        ValueError: There is no such architecture or encoder, or the two do not go together.
    """
    # Imported here because smp brings timm with it, two seconds that a look at a config can spare.
    import segmentation_models_pytorch as smp

    architectures = {
        kind.__name__.lower(): kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()
    }
    if config.architecture.lower() not in architectures:
        raise ValueError(
            f"architecture is {config.architecture!r}; "
            f"expected one of {', '.join(architectures.values())}"
        )
    if config.encoder.startswith(TIMM_PREFIX):
        _check_timm_encoder(config.encoder)
    elif config.encoder not in (names := smp.encoders.get_encoder_names()):
        raise ValueError(f"encoder is {config.encoder!r}; {_near(config.encoder, names)}")
    try:
        return smp.create_model(
            config.architecture,
            encoder_name=config.encoder,
            encoder_weights=None,
            in_channels=config.in_channels,
            classes=config.classes,
            **_second_head(config.num_labels),
        )
    except Exception as error:  # smp and timm raise nearly anything for what they cannot combine
        raise ValueError(
            f"architecture {config.architecture} cannot be built with encoder {config.encoder} "
            f"({first_line(error)})"
        ) from error


def _second_head(num_labels: int) -> dict[str, object]:
    """smp's arguments for a classifier of the encoder's last features, averaged over the slice."""
    if not num_labels:
        return {}
    return {"aux_params": {"classes": num_labels, "pooling": "avg"}}


def split_output(output: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
    """What a network returned: mask logits (B, K, H, W), and label logits (B, L) or None."""
    return output if isinstance(output, tuple) else (output, None)


def try_model(model: nn.Module, config: ModelConfig, size: int, num_samples: int) -> bool:
    """Takes one step with a copy of a model, to see whether it can be trained on such slices.

    Args:
        model: Of `build_model`, on the CPU; it stays as it is.
        config: Its shape.
        size: Pixels of a slice along each axis.
        num_samples: The fewest samples that a step computes at once.

    Returns:
        Whether every parameter gets a gradient, which DistributedDataParallel has to know.

    Raises:
        BratsError: The network does not take the slices, or its output has another size.
    """
    words = f"--set model.architecture={config.architecture} --set model.encoder={config.encoder}"
    trial = copy.deepcopy(model).train()
    images = torch.zeros(num_samples, config.in_channels, size, size)
    try:
        with torch.random.fork_rng(devices=[]):  # dropout draws
            logits, labels = split_output(trial(images))
        (logits.mean() + (0 if labels is None else labels.mean())).backward()
    except Exception as error:  # as above
        raise BratsError(
            f"{words}: cannot be trained on {count_of(num_samples, 'sample')} of "
            f"{config.in_channels} x {size} x {size} ({first_line(error)}). Choose another encoder "
            "or architecture, another --size of the cache, a --batch-size that leaves no fewer "
            "samples over, or --set half_resolution=0 where steps are taken at half the pixels."
        ) from error
    expected = (num_samples, config.classes, size, size)
    if tuple(logits.shape) != expected:
        raise BratsError(
            f"{words}: makes {tuple(logits.shape)} of {tuple(images.shape)}, expected {expected}. "
            "Choose another architecture."
        )
    return all(parameter.grad is not None for parameter in trial.parameters())


def _check_timm_encoder(encoder: str) -> None:
    """Raises `ValueError` for a name that timm does not know."""
    import timm

    name = encoder.removeprefix(TIMM_PREFIX)
    if not timm.is_model(name.partition(".")[0]):
        raise ValueError(f"encoder is {encoder!r}; {_near(name, timm.list_models())} of timm's")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3)
    listed = " or ".join(near) or "a name of smp's list of encoders"
    return f"expected {listed}"
