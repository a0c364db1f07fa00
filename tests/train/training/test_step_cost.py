"""What a training step costs beside its arithmetic: kernels that are launched, and compilations.

A GPU takes about 5 us to launch one, so that a step of few slices waits for the host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.utils._python_dispatch import TorchDispatchMode

from brats_cache.format.reader import Cache
from brats_train.data import augmentation as augment
from brats_train.data.augmentation import AugmentConfig
from brats_train.data.loader import Batch
from brats_train.data.targets import region_targets
from brats_train.runtime.compile import CompileMode
from brats_train.runtime.distributed import World
from brats_train.training import losses
from brats_train.training.losses import LossConfig
from brats_train.training.recipe import Recipe, apply_settings, load_recipe
from brats_train.training.train_step import TrainStep
from brats_train.training.validation import sums_of
from tests.commands import SMALL_ENCODER

CPU = torch.device("cpu")
EVERYTHING = AugmentConfig(
    cross_modality=True, scale=0.2, gamma=0.3, bias_field=0.3, blur=0.5, modality_dropout=0.5
)
# Counted with torch 2.15 in bf16: 640 and 729, four fifths of them the network's. Other versions
# may differ by a few.
LAUNCHES = {"paper": 650, "strong": 740}


class CountLaunches(TorchDispatchMode):
    """Counts the operations within it that compute something: not views, and not allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        name = func.overloadpacket.__name__
        is_free = func.is_view or name.startswith(("empty", "new_empty", "_record_function"))
        if not is_free and name != "promote_types":
            self.by_name[name] += 1
        return func(*args, **(kwargs or {}))


def batch_of(cache: Cache, recipe: Recipe, num: int, step: int = 0) -> Batch:
    images = torch.tensor(cache.images[:num]).tile(1, 2 * recipe.context + 1, 1, 1)
    masks = torch.tensor(cache.masks[:num])
    return Batch(
        images=images,
        masks=masks,
        step=step,
        global_size=num,
        part=slice(0, num),
        indices=np.arange(num),
    )


def train_step_of(
    cache: Cache, recipe: Recipe, *, least: int, compile_mode: CompileMode = False
) -> Callable[[Batch], None]:
    train_step = TrainStep(
        recipe,
        [cache],
        World(rank=0, size=1, device=CPU),
        largest=recipe.batch_size,
        least=least,
        micro_batch="auto",
        init_from=None,
        compile_mode=compile_mode,
    )
    train_step.model.train()
    totals = torch.zeros(4, dtype=torch.float64)
    return lambda batch: train_step(batch, 0, 1e-3, totals)


@pytest.mark.parametrize("name", ["paper", "strong"])
def test_a_step_launches_no_more_kernels_than_it_did(cache: Cache, name: str) -> None:
    settings = ["encoder_weights=none", "batch_size=4", "amp=bf16", "target=regions"]
    recipe = apply_settings(load_recipe(name), settings)
    take_step = train_step_of(cache, recipe, least=4)
    take_step(batch_of(cache, recipe, 4))  # makes moments and gradients
    with CountLaunches() as launches:
        take_step(batch_of(cache, recipe, 4, step=1))
    assert launches.by_name["native_batch_norm"] > 40  # it sees the network
    assert launches.by_name.total() <= LAUNCHES[name], launches.by_name.most_common()


@pytest.mark.slow
def test_the_odd_last_batch_is_not_compiled(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, fresh_compiler: None
) -> None:
    """A compilation takes a minute, and would come once more for each shape."""
    shapes = []

    def compiled(graph: Any, inputs: Any, **_: Any) -> Any:
        shapes.append(len(inputs[-1]) if isinstance(inputs[-1], Tensor) else None)
        passes = aot_autograd(fw_compiler=as_it_is, bw_compiler=as_it_is)
        return passes(graph, inputs)

    def as_it_is(graph: Any, _: Any) -> Any:
        return make_boxed_func(graph.forward)

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", compiled)
    settings = ["encoder_weights=none", "batch_size=4", "amp=off", f"model.encoder={SMALL_ENCODER}"]
    recipe = apply_settings(Recipe(), settings)
    take_step = train_step_of(cache, recipe, least=1, compile_mode=True)
    for num in (4, 3, 4, 1, 4):
        take_step(batch_of(cache, recipe, num))
    assert len(shapes) == 1


@pytest.mark.parametrize(("config", "window"), [(AugmentConfig(), 0), (EVERYTHING, 32)])
def test_augmentation_is_one_graph(
    monkeypatch: pytest.MonkeyPatch, fresh_compiler: None, config: AugmentConfig, window: int
) -> None:
    monkeypatch.setattr(augment, "_apply_in_chunks", augment._apply)  # as on a GPU
    images = torch.randn(6, 4, 64, 64, generator=torch.Generator().manual_seed(0)).half()
    masks = torch.arange(6 * 64 * 64, dtype=torch.uint8).reshape(6, 1, 64, 64) % 4
    parameters = augment.draw(
        config,
        num_samples=6,
        num_modalities=4,
        window=window,
        seed=1,
        epoch=0,
        step=0,
        device=CPU,
    )
    traced = torch.compile(augment.apply, fullgraph=True, backend="aot_eager")
    moved, moved_masks = traced(images, masks, parameters)
    expected, expected_masks = augment.apply(images, masks, parameters)
    torch.testing.assert_close(moved, expected)
    assert torch.equal(moved_masks, expected_masks)


@pytest.mark.parametrize("config", [LossConfig(), load_recipe("strong").loss], ids=str)
def test_the_loss_and_its_sums_are_one_graph(fresh_compiler: None, config: LossConfig) -> None:
    def loss_and_sums(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        targets = region_targets(masks, ("wt", "tc", "et"))
        terms = losses.compute(config, logits, targets)
        return terms.total.sum(), sums_of(terms, logits, targets)

    masks = torch.arange(6 * 32 * 32, dtype=torch.uint8).reshape(6, 1, 32, 32) % 4
    results = []
    for function in (
        loss_and_sums,
        torch.compile(loss_and_sums, fullgraph=True, backend="aot_eager"),
    ):
        torch.manual_seed(0)
        logits = torch.randn(6, 3, 32, 32, requires_grad=True)
        loss, sums = function(logits, masks)
        loss.backward()
        results.append((loss.detach(), sums, logits.grad))
    torch.testing.assert_close(*results)
