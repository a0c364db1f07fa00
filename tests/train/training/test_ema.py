"""The moving average of the weights: PyTorch's own, without its waits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from brats_train.training.ema import MovingAverage


def a_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))


def apply_settings(network: nn.Module, seed: int) -> None:
    """A step of something like training: weights and statistics move."""
    torch.manual_seed(seed)
    network(torch.randn(4, 2, 8, 8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


def ramped(averages: list[Tensor], weights: list[Tensor], num_averaged: Tensor) -> None:
    """PyTorch's average with the decay that a short training needs."""
    number = int(num_averaged)
    decay = min(0.3, (1 + number) / (10 + number))
    get_ema_multi_avg_fn(decay)(averages, weights, num_averaged)


def test_it_equals_pytorchs_own_through_a_break() -> None:
    network = a_network()
    ours, theirs = (
        MovingAverage(network, 0.3),
        AveragedModel(network, multi_avg_fn=ramped, use_buffers=True),
    )
    for step in range(6):  # the decay reaches 0.3 with the third update
        apply_settings(network, step)
        if step in (0, 3):  # taken up from a checkpoint, before and after the first update
            state = ours.state_dict()
            ours = MovingAverage(a_network(), 0.3)
            ours.load_state_dict(state)
        ours.update_parameters(network)
        theirs.update_parameters(network)
        expected = theirs.module.state_dict()
        for name, value in ours.module.state_dict().items():
            if name.endswith("num_batches_tracked"):  # not averaged
                assert value == network.state_dict()[name]
            else:
                assert torch.equal(value, expected[name]), (step, name)


def test_the_network_is_left_alone() -> None:
    network = a_network()
    average = MovingAverage(network, 0.5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    average.update_parameters(network)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in average.module.parameters())


def test_a_state_of_something_else_is_refused() -> None:
    average = MovingAverage(a_network(), 0.5)
    with pytest.raises(KeyError):
        average.load_state_dict({"module": a_network().state_dict()})
    with pytest.raises(RuntimeError):
        average.load_state_dict({"num_updates": 1, "module": nn.Linear(1, 1).state_dict()})
