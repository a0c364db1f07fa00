"""The network, a U-Net whose contracting path is a ResNet, and where its first weights come from.

`build_model` never touches the network or the disk: a model that is about to be filled from a
checkpoint needs no ImageNet weights. `load_encoder_weights` fills the encoder of a new model and
returns a line of provenance for the checkpoint.

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

    in_channels   modalities C
    classes       regions K, one logit each
    encoder       one of ENCODERS
    num_grades    classes of the optional second task, 0 without one

    Raises ValueError that names the field.
    """

    in_channels: int
    classes: int
    encoder: str = "resnet34"
    num_grades: int = 0

    def __post_init__(self) -> None:
        for field in ("in_channels", "classes"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; expected at least 1")
        if self.num_grades < 0 or self.num_grades == 1:
            raise ValueError(f"num_grades is {self.num_grades}; expected 0 (no head) or at least 2")
        if self.encoder not in ENCODERS:
            raise ValueError(f"encoder is {self.encoder!r}; expected one of {', '.join(ENCODERS)}")


def build_model(config: ModelConfig) -> nn.Module:
    """A U-Net with random weights, from torch's global generator.

    Takes (B, C, H, W) images, H and W multiples of 32, and returns mask logits (B, K, H, W); with
    `num_grades` G a tuple of these and class logits (B, G), from smp's classification head: the
    encoder's last feature map averaged, dropout 0.2, one linear layer.
    """
    # Imported here because smp brings timm with it, two seconds that a look at a config can spare.
    import segmentation_models_pytorch as smp

    return smp.Unet(
        encoder_name=config.encoder,
        encoder_weights=None,
        in_channels=config.in_channels,
        classes=config.classes,
        aux_params={"classes": config.num_grades} if config.num_grades else None,
    )
