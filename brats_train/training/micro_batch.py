"""How many samples are computed at once: tried out on a GPU, all of them on a CPU."""

from __future__ import annotations

import torch
from torch import nn

from brats_cache.common.errors import BratsError
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import autocast, cudnn_autotuning

__all__ = ["choose_micro_batch", "is_out_of_memory"]

BYTES_A_PARAMETER = 12  # two moments and a gradient bucket, which the first step will allocate
COPIES_OF_IMAGES = 8  # float32 images that augmentation holds at once, at most


def choose_micro_batch(
    wanted: str,
    model: nn.Module,
    largest: int,
    shape: tuple[int, int, int, int],
    amp: str,
    world: World,
) -> int:
    """How many of a rank's `largest` samples are computed at once, the same on every rank.

    wanted  "auto": as many as a GPU's memory holds, tried out; all of them on a CPU. Or a number.
    shape   of the cache, (N, C, S, S)

    Raises `BratsError` where not even one sample fits.
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
    shape: tuple[int, int, int, int],
    amp: str,
    device: torch.device,
) -> bool:
    """Whether a forward and backward pass of `size` samples fits beside all that a step holds."""
    buffers = [buffer.clone() for buffer in model.buffers()]  # batch norm's statistics move
    model.train()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    image_bytes = largest * shape[1] * shape[2] * shape[3] * 4
    try:
        reserve = torch.empty(
            BYTES_A_PARAMETER * num_parameters + COPIES_OF_IMAGES * image_bytes,
            dtype=torch.uint8,
            device=device,
        )
        images = torch.randn(size, *shape[1:], device=device)
        with cudnn_autotuning(True):
            with autocast(amp, device):
                logits = model(images.contiguous(memory_format=torch.channels_last))
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
