"""Judging in the loop: every row once, whatever the number of ranks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from brats_cache.format.reader import Cache
from brats_train.data.selection import select_rows
from brats_train.models.network import ModelConfig, build_model
from brats_train.runtime.distributed import World
from brats_train.training.recipe import Recipe
from brats_train.training.validation import NAMES, ROWS_AT_ONCE, Validator, means_of
from tests.commands import SMALL_ENCODER


class Alone(World):
    """One rank of several that keeps its sums to itself, so that a test can add them up."""

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        return tensor

    def broadcast_buffers(self, model: torch.nn.Module) -> None: ...


@pytest.mark.parametrize("target", ["wt", "regions"])
def test_metrics_do_not_depend_on_the_number_of_ranks(cache: Cache, target: str) -> None:
    rows = select_rows([cache], "val", "all")
    recipe = Recipe(target=target)
    torch.manual_seed(0)
    config = ModelConfig(in_channels=4, classes=len(recipe.regions), encoder=SMALL_ENCODER)
    model = build_model(config)
    found = []
    for size in (1, 2, 3):
        worlds = [Alone(rank=rank, size=size, device=torch.device("cpu")) for rank in range(size)]
        parts = [
            Validator([cache], rows, recipe, "off", world, "never").sums(model) for world in worlds
        ]
        means = means_of(torch.stack(parts).sum(dim=0).tolist(), len(rows))
        found.append([means[name] for name in NAMES])
    assert found[1] == pytest.approx(found[0], abs=1e-6)
    assert found[2] == pytest.approx(found[0], abs=1e-6)
    assert all(value > 0 for value in found[0][:3])


def test_what_a_first_pass_takes_is_not_expected_of_all(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cold pass of 100 s before passes of 1 s; else nothing of --max-minutes is left to train."""
    clock = [0.0]
    monkeypatch.setattr(
        "brats_train.training.validation.time", SimpleNamespace(monotonic=lambda: clock[0])
    )

    class Cold(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            clock[0] += 1.0 if clock[0] else 100.0
            return images

    rows = select_rows([cache], "val", "all")
    alone = Alone(rank=0, size=1, device=torch.device("cpu"))
    validator = Validator([cache], rows, Recipe(), "off", alone, "never")
    assert validator.estimate_seconds(Cold()) == -(-len(rows) // ROWS_AT_ONCE)
