"""An exponential moving average of a network's weights.

`torch.optim.swa_utils.AveragedModel` computes the same, but counts its updates in a tensor: reading
it, or copying it to the GPU, makes the host wait for the device once a step.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """An average that follows a network.

    After its first update it equals the network; then, with decay d, each weight becomes
    d average + (1 - d) weight. After n updates d is at most (1 + n) / (10 + n), so that a short
    training is not held back by its first weights. Batch norm's statistics are averaged as well:
    the network's own are those of its last ten batches or so, which are few slices.

    Attributes:
        module: A network with the averaged weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(network).requires_grad_(False)
        self._decay, self._num_updates = decay, 0

    @torch.no_grad()
    def update_parameters(self, network: nn.Module) -> None:
        """Takes the weights of `network`, on its device, without the host waiting for it."""
        averages, counts = _tensors(self.module)
        weights, network_counts = _tensors(network)
        if self._num_updates:
            decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
            torch._foreach_lerp_(averages, weights, 1 - decay)
        else:
            torch._foreach_copy_(averages, weights)
        if counts:
            torch._foreach_copy_(counts, network_counts)
        self._num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self._num_updates, "module": self.module.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises KeyError or RuntimeError where `state` does not fit."""
        self.module.load_state_dict(state["module"])
        self._num_updates = int(state["num_updates"])


def _tensors(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The weights and floating-point buffers of a network; and its other buffers, which are batch
    norm's counts of batches."""
    averaged: list[Tensor] = list(network.parameters())
    others: list[Tensor] = []
    for buffer in network.buffers():
        (averaged if buffer.is_floating_point() else others).append(buffer)
    return averaged, others
