"""The training step on a GPU: the host waits for nothing, number formats agree, memory suffices."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from brats_train.data.loader import Batch, Batches
from brats_train.data.targets import region_targets
from brats_train.runtime.precision import autocast
from brats_train.training import losses
from brats_train.training.train_step import NEVER, TrainStep
from tests.gpu.conftest import MakeTrainStep

GIB = 1 << 30
BatchesOf = Callable[..., Batches]


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Within it every wait of the host for the device is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def memory_of(num_bytes: int) -> Iterator[None]:
    """Within it torch has so much of the GPU's memory."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, num_bytes / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def learn(train_step: TrainStep, batches: Batches, num_steps: int, epoch: int = 0) -> None:
    totals = torch.zeros(4, dtype=torch.float64, device=train_step.world.device)
    for batch in batches.epoch(epoch):
        train_step(batch, epoch, 1e-3, totals)
        if batch.step + 1 == num_steps:
            return


def test_the_guard_sees_a_synchronisation(device: torch.device) -> None:
    one = torch.ones(1, device=device)
    with pytest.raises(RuntimeError), no_synchronisation():
        one.item()


@pytest.mark.parametrize("resident", ["never", "always"])
@pytest.mark.parametrize(
    "settings",
    [
        ("amp=bf16",),
        ("amp=fp16",),
        ("amp=off",),
        ("amp=fp16", "clip_norm=1.0", "ema=0.9", "target=regions"),
    ],
    ids=" ".join,
)
def test_the_host_never_waits_in_a_step(
    make_train_step: MakeTrainStep, batches_of: BatchesOf, resident: str, settings: tuple[str, ...]
) -> None:
    train_step = make_train_step("batch_size=16", *settings, micro_batch="8")
    batches = batches_of(16, resident)
    learn(train_step, batches, 3)  # allocates, chooses convolutions, compiles kernels
    with no_synchronisation():
        learn(train_step, batches, batches.num_steps, epoch=1)
    assert int(train_step.first_nonfinite) == NEVER


# Eight bits of mantissa (bf16) or eleven (fp16) in every activation of a forty-layer network: the
# loss is a mean over a million pixels, the gradient of a single weight is not.
@pytest.mark.parametrize(
    ("amp", "loss_tolerance", "least_cosine"), [("bf16", 1e-2, 0.95), ("fp16", 2e-3, 0.99)]
)
def test_half_precision_agrees_with_float32(
    make_train_step: MakeTrainStep,
    batches_of: BatchesOf,
    amp: str,
    loss_tolerance: float,
    least_cosine: float,
) -> None:
    train_step = make_train_step("batch_size=16", "amp=off")
    batches = batches_of(16)
    learn(train_step, batches, 8)  # away from the first weights, where all logits are alike
    batch = next(iter(batches.epoch(1)))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        loss, gradient = loss_and_gradient(train_step, "off", batch)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    half_loss, half_gradient = loss_and_gradient(train_step, amp, batch)
    assert abs(half_loss - loss) <= loss_tolerance * abs(loss)
    assert float(torch.cosine_similarity(half_gradient, gradient, dim=0)) >= least_cosine
    torch.testing.assert_close(half_gradient.norm(), gradient.norm(), rtol=0.1, atol=0)


def loss_and_gradient(train_step: TrainStep, amp: str, batch: Batch) -> tuple[float, torch.Tensor]:
    """The mean loss and its gradient by all weights, scaled on the way, as fp16 needs it."""
    train_step.model.zero_grad()
    images = batch.images.to(torch.float32, memory_format=torch.channels_last)
    with autocast(amp, batch.images.device):
        logits = train_step.model(images)
    targets = region_targets(batch.masks, ("wt",))
    loss = losses.compute(train_step.recipe.loss, logits, targets).total.mean()
    (1024 * loss).backward()
    gradients = [p.grad.flatten() for p in train_step.model.parameters() if p.grad is not None]
    return loss.item(), torch.cat(gradients).double() / 1024


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_the_papers_batch_trains_on_a_gpu_of_8_gb(
    make_train_step: MakeTrainStep, batches_of: BatchesOf, amp: str
) -> None:
    """7.5 GiB in all, half a GiB of them for CUDA's own context, which torch does not count."""
    with memory_of(7 * GIB):
        train_step = make_train_step("batch_size=64", f"amp={amp}")
        learn(train_step, batches_of(64), 3)
        torch.cuda.synchronize()
        assert torch.cuda.max_memory_reserved() <= 7 * GIB
    assert int(train_step.first_nonfinite) == NEVER


def test_a_batch_beyond_memory_is_split(
    make_train_step: MakeTrainStep, batches_of: BatchesOf
) -> None:
    with memory_of(5 * GIB):
        train_step = make_train_step("batch_size=128", "amp=off")
        assert 1 <= train_step.micro_batch < 128
        learn(train_step, batches_of(128), 1)
    assert int(train_step.first_nonfinite) == NEVER
