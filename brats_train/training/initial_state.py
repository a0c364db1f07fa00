"""The model of a run before its first step: network, first weights, optimizer, moving average."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brats_cache.common.errors import BratsError, printable
from brats_train.models.network import ModelConfig, build_model
from brats_train.models.onnx_file import is_onnx
from brats_train.models.pretrained import load_encoder_weights
from brats_train.models.sources import load_models
from brats_train.training.ema import MovingAverage
from brats_train.training.recipe import Recipe

__all__ = ["bare_model", "initial_model", "make_ema", "make_optimizer", "model_config"]

_MOMENTUM = 0.9  # of SGD


def model_config(recipe: Recipe, num_channels: int, num_labels: int) -> ModelConfig:
    """The model that a recipe asks for."""
    return ModelConfig(
        in_channels=num_channels,
        classes=len(recipe.regions),
        architecture=recipe.model.architecture,
        encoder=recipe.model.encoder,
        num_labels=num_labels,
    )


def bare_model(config: ModelConfig) -> nn.Module:
    """Makes a model with random weights. Raises `BratsError` where there is no such network."""
    try:
        return build_model(config)
    except ValueError as error:
        raise BratsError(f"--set model.{printable(error)}.") from error


def initial_model(
    config: ModelConfig,
    encoder_weights: str,
    init_from: Path | None,
    modalities: Sequence[str] = (),
) -> tuple[nn.Module, str]:
    """Makes a model and its first weights.

    Args:
        config: The architecture.
        encoder_weights: "imagenet", "none" or a file.
        init_from: Take the whole model from there instead: what `sources.load_models` takes, but
            for an ONNX file.
        modalities: Of the data, in order, which such a model must take; none are compared.

    Returns:
        The model, and where its weights came from.

    Raises:
        BratsError: The weights cannot be had, or do not fit.
    """
    if init_from is None:
        model = bare_model(config)
        return model, load_encoder_weights(model, config.encoder, encoder_weights)
    if is_onnx(init_from):
        raise BratsError(
            f"--init-from {printable(init_from)}: an ONNX file cannot be trained on. Name the run "
            "or the checkpoint that it was exported from, or a folder of brats export --format hub."
        )
    found = load_models(init_from)
    if len(found) > 1:
        raise BratsError(
            f"--init-from {printable(init_from)}: holds {len(found)} models. Name one of "
            "them, such as a fold folder of the run."
        )
    spec = found[0].spec
    if modalities and spec.preparation.modalities != tuple(modalities):
        held, wanted = ", ".join(spec.preparation.modalities), ", ".join(modalities)
        raise BratsError(
            f"--init-from {printable(init_from)}: its model takes {held}, this run {wanted}. Build "
            f"the cache with --modalities {held.replace(' ', '')}."
        )
    if spec.model != config:
        raise BratsError(
            f"--init-from {printable(init_from)}: its model is {spec.model}, this run's {config}."
        )
    name = "/".join(init_from.parts[-2:])  # travels with the model, so no path of this machine
    return found[0].network, f"{name} ({spec.weights_from})"


def make_ema(model: nn.Module, decay: float) -> MovingAverage | None:
    """Returns a moving average of the weights, None for a decay of 0."""
    return MovingAverage(model, decay) if decay else None


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of a recipe over the parameters of a model."""
    groups = _parameter_groups(model, recipe)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=_MOMENTUM, nesterov=True, fused=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr, fused=True)


def _parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters of a model for an optimizer, those without weight decay apart."""
    if recipe.decay_norms:
        return [{"params": list(model.parameters()), "weight_decay": recipe.weight_decay}]
    # Weights of convolutions have four dimensions, biases and normalisations one.
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
