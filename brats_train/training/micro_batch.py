"""How many samples are computed at once: tried out on a GPU, all of them on a CPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from brats_cache.common.errors import BratsError, first_line
from brats_train.models.network import split_output
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import autocast, cudnn_autotuning

__all__ = ["choose_micro_batch", "is_out_of_memory", "oom_as_error"]

BYTES_A_PARAMETER = 12  # two moments and a gradient bucket, which the first step will allocate
COPIES_OF_IMAGES = 8  # float32 images that augmentation holds at once, at most


def choose_micro_batch(
    wanted: str,
    model: nn.Module,
    largest: int,
    shape: tuple[int, int, int],
    amp: str,
    world: World,
) -> int:
    """Chooses how many of a rank's samples are computed at once, the same on every rank.

    Args:
        wanted: "auto": as many as a GPU's memory holds, tried out; all of them on a CPU. Or a
            number.
        model: The network on its device.
        largest: Samples that this rank sees at most in a step.
        shape: Of a sample, (C, S, S).
        amp: "bf16", "fp16" or "off".
        world: This process among its peers.

    Raises:
        BratsError: Not even one sample fits, or `wanted` is something else.
    """
    if wanted != "auto":
        if not wanted.isdigit() or int(wanted) < 1:
            raise BratsError(f"--micro-batch {wanted}: expected auto or a number of samples.")
        return min(int(wanted), largest)
    size = largest
    if world.device.type == "cuda":
        _keep_to_free_memory(world.device)
    while world.device.type == "cuda" and not _fits(model, size, largest, shape, amp, world.device):
        if size == 1:
            raise BratsError(f"Not even one {shape[-1]} x {shape[-1]} sample fits on the GPU.")
        size = -(-size // 2)
    return world.min_over_ranks(size)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory was too small; cuDNN and cuBLAS say so in words of their own."""
    words = ("out of memory", "unable to find an engine", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


@contextmanager
def oom_as_error(micro_batch: str, world: World) -> Iterator[None]:
    """Turns a device that is out of memory into one message."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise BratsError(
            f"Out of memory on {world.device} (--micro-batch {micro_batch}): "
            f"{first_line(error)} Close what else uses the device, or give a "
            "smaller --micro-batch; the last good checkpoint is kept."
        ) from error


def _keep_to_free_memory(device: torch.device) -> None:
    """Has torch refuse, for the rest of the process, what does not fit into what is free of the
    GPU's memory. Drivers under Windows would go on in the host's, many times slower."""
    # Has the libraries loaded, which take memory that torch does not count.
    pixels = torch.zeros(1, 1, 8, 8, device=device, requires_grad=True)
    nn.functional.conv2d(pixels, torch.ones(1, 1, 3, 3, device=device)).sum().backward()
    free, total = torch.cuda.mem_get_info(device)
    fraction = (free + torch.cuda.memory_reserved(device)) / total
    allowed = torch.cuda.get_per_process_memory_fraction(device)
    torch.cuda.set_per_process_memory_fraction(min(fraction, allowed), device)


def _fits(
    model: nn.Module,
    size: int,
    largest: int,
    shape: tuple[int, int, int],
    amp: str,
    device: torch.device,
) -> bool:
    """Whether a forward and backward pass of `size` samples fits beside all that a step holds."""
    buffers = [buffer.clone() for buffer in model.buffers()]  # batch norm's statistics move
    model.train()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    image_bytes = largest * math.prod(shape) * 4
    try:
        reserve = torch.empty(
            BYTES_A_PARAMETER * num_parameters + COPIES_OF_IMAGES * image_bytes,
            dtype=torch.uint8,
            device=device,
        )
        images = torch.randn(size, *shape, device=device)
        with cudnn_autotuning(True):
            with autocast(amp, device):
                logits, _ = split_output(
                    model(images.contiguous(memory_format=torch.channels_last))
                )
            logits.float().square().mean().backward()
        torch.cuda.synchronize(device)  # before training: the answer is needed now
        del reserve, images, logits
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        model.zero_grad(set_to_none=True)
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        torch.cuda.empty_cache()
    return True
