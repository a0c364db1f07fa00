"""The network: a U-Net whose encoder is a ResNet.

`build_model` downloads and reads nothing: a model that is about to be filled from a checkpoint
needs no ImageNet weights. `pretrained.load_encoder_weights` fills the encoder of a new model.

ImageNet weights are made for RGB. As in segmentation_models_pytorch (smp) the first convolution of
an encoder with n input channels takes the RGB weights in turn, R G B R ..., scaled by 3 / n, so
that its output keeps its size; with one channel it takes their sum.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

__all__ = ["ENCODERS", "ModelConfig", "build_model"]

ENCODERS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of the network.

    Attributes:
        in_channels: Number of modalities C.
        classes: Number of regions K, one logit each.
        encoder: One of `ENCODERS`.

    Raises:
        ValueError: A field has a value that is not allowed; the message names it.
    """

    in_channels: int
    classes: int
    encoder: str = "resnet34"

    def __post_init__(self) -> None:
        for field in ("in_channels", "classes"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; expected at least 1")
        if self.encoder not in ENCODERS:
            raise ValueError(f"encoder is {self.encoder!r}; expected one of {', '.join(ENCODERS)}")


def build_model(config: ModelConfig) -> nn.Module:
    """Builds a U-Net with random weights, drawn from torch's global generator.

    Returns:
        A network that takes (B, C, H, W) float images, H and W multiples of 32, and returns mask
        logits (B, K, H, W).
    """
    # Imported here because smp brings timm with it, two seconds that a look at a config can spare.
    import segmentation_models_pytorch as smp

    return smp.Unet(
        encoder_name=config.encoder,
        encoder_weights=None,
        in_channels=config.in_channels,
        classes=config.classes,
    )
