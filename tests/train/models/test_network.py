"""What is true of a new network."""

from __future__ import annotations

import socket

import pytest
import torch
from torch import Tensor, nn

from brats_cache.common.errors import BratsError
from brats_train.models.network import ModelConfig, build_model, try_model


def small_model(in_channels: int = 4, classes: int = 1) -> nn.Module:
    return build_model(ModelConfig(in_channels=in_channels, classes=classes, encoder="resnet18"))


def encoder_of(model: nn.Module) -> dict[str, Tensor]:
    return model.get_submodule("encoder").state_dict()


@pytest.mark.parametrize(("in_channels", "classes"), [(4, 1), (1, 3)])
def test_mask_logits_have_the_images_size(in_channels: int, classes: int) -> None:
    model = build_model(ModelConfig(in_channels=in_channels, classes=classes)).eval()
    with torch.no_grad():
        logits = model(torch.randn(2, in_channels, 64, 96))
    assert logits.shape == (2, classes, 64, 96)
    assert logits.min() < 0 < logits.max()


def test_the_default_encoder_is_a_whole_resnet34() -> None:
    from torchvision.models import resnet34

    own = encoder_of(build_model(ModelConfig(in_channels=3, classes=1)))
    theirs = {k: v for k, v in resnet34(weights=None).state_dict().items() if k[:3] != "fc."}
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in theirs.items()}


def test_building_uses_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    small_model()


def test_building_is_decided_by_the_global_seed() -> None:
    torch.manual_seed(5)
    first = small_model().state_dict()
    torch.manual_seed(5)
    second = small_model().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("field", "value"),
    [("in_channels", 0), ("classes", 0), ("architecture", "U-Net"), ("encoder", "resnet35")],
)
def test_a_wrong_setting_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} is "):
        build_model(ModelConfig(**({"in_channels": 4, "classes": 1} | {field: value})))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("architecture", "encoder"),
    [
        ("UnetPlusPlus", "resnet18"),
        ("MAnet", "mobilenet_v2"),
        ("FPN", "efficientnet-b0"),
        ("Segformer", "mit_b0"),
        ("unet", "tu-resnet10t"),
        ("DeepLabV3Plus", "tu-convnext_atto"),
    ],
)
def test_other_networks_take_any_channels_and_can_be_trained(
    architecture: str, encoder: str
) -> None:
    config = ModelConfig(in_channels=5, classes=3, architecture=architecture, encoder=encoder)
    torch.manual_seed(1)
    model = build_model(config)
    state = torch.get_rng_state()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try_model(model, config, 64, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("architecture", "encoder", "size", "num_samples"),
    [
        ("Unet", "resnet18", 32, 1),  # batch norm over one value
        ("Unet", "tu-vit_tiny_patch16_224", 64, 2),
        ("UperNet", "tu-swin_tiny_patch4_window7_224", 64, 2),
    ],
)
def test_a_network_that_cannot_take_the_slices_is_one_message(
    architecture: str, encoder: str, size: int, num_samples: int
) -> None:
    config = ModelConfig(in_channels=4, classes=1, architecture=architecture, encoder=encoder)
    with pytest.raises((BratsError, ValueError), match=f"{architecture}.*{encoder}") as caught:
        try_model(build_model(config), config, size, num_samples)
    assert "\n" not in str(caught.value)


def test_parameters_without_gradient_are_told() -> None:
    config = ModelConfig(in_channels=4, classes=1, encoder="resnet18")
    model = build_model(config)
    assert try_model(model, config, 64, 2)
    model.add_module("idle", nn.Linear(2, 2))
    assert not try_model(model, config, 64, 2)


def test_a_near_name_is_proposed() -> None:
    for name, near in (("resnet43", "resnet34"), ("tu-resnet43", "resnet34")):
        with pytest.raises(ValueError, match=near):
            build_model(ModelConfig(in_channels=1, classes=1, encoder=name))
