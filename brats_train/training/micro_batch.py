"""How many samples are computed at once, and the memory that takes: tried out on a GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from brats_cache.common.errors import BratsError, first_line
from brats_cache.common.memory import is_out_of_gpu_memory
from brats_train.models.network import split_output
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import autocast, cudnn_autotuning

__all__ = ["choose_micro_batch", "oom_as_error"]

# For each parameter, beside what the trial allocates itself: two moments and a gradient bucket,
# which the first step will allocate; and the snapshots of last.pt (weights, moments, their moving
# average) and best.pt, which a thread fetches while training goes on.
BYTES_A_PARAMETER = 4 * (2 + 1 + (1 + 2 + 1) + 1)
COPIES_OF_IMAGES = 8  # float32 images that augmentation holds at once, at most


def choose_micro_batch(
    wanted: str,
    model: nn.Module,
    largest: int,
    shape: tuple[int, int, int],
    amp: str,
    world: World,
    *,
    resident_bytes: int = 0,
) -> tuple[int, int]:
    """Chooses how many of a rank's samples are computed at once, the same on every rank.

    Args:
        wanted: "auto": as many as a GPU's memory holds, tried out; all of them on a CPU. Or a
            number.
        model: The network on its device, without layers that exchange anything between ranks, for
            these may try sizes a different number of times.
        largest: Samples that this rank sees at most in a step.
        shape: Of a sample, (C, S, S).
        amp: "bf16", "fp16" or "off".
        world: This process among its peers.
        resident_bytes: Of rows that will have to fit beside a step.

    Returns:
        The number, and the bytes of the GPU's memory that a step of this rank takes beside the
        model; 0 on a CPU.

    Raises:
        BratsError: Not even one sample fits, or not the given number, or `wanted` is something
            else.
    """
    if wanted != "auto" and not (wanted.isdecimal() and int(wanted) > 0):
        raise BratsError(f"--micro-batch {wanted}: expected auto or a number of samples.")
    size = largest if wanted == "auto" else min(int(wanted), largest)
    if world.device.type != "cuda":
        return world.min_over_ranks(size), 0
    trial = _Trial(model, largest, shape, amp, world.device, resident_bytes)
    while (step_bytes := trial.bytes_of(size)) is None:
        side = shape[-1]
        rows = f" beside {resident_bytes / 2**30:.1f} GiB of rows" if resident_bytes else ""
        way_out = "--resident never, " if resident_bytes else ""
        if wanted != "auto":
            raise BratsError(
                f"--micro-batch {wanted}: so many samples of {side} x {side} do not fit on the "
                f"GPU{rows} at once. Close what else uses the GPU, or choose {way_out}auto or a "
                "smaller number; a run that goes on keeps its own."
            )
        if size == 1:
            way_out = " Choose --resident never." if resident_bytes else ""
            raise BratsError(f"Not even one {side} x {side} sample fits on the GPU{rows}.{way_out}")
        size = -(-size // 2)
    return world.min_over_ranks(size), step_bytes


@contextmanager
def oom_as_error(micro_batch: str, world: World) -> Iterator[None]:
    """Turns a device that is out of memory into one message."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_gpu_memory(error):
            raise
        raise BratsError(
            f"Out of memory on {world.device} (--micro-batch {micro_batch}): "
            f"{first_line(error)} Close what else uses the device, or give a "
            "smaller --micro-batch; the last good checkpoint is kept."
        ) from error


class _Trial:
    """Forward and backward passes beside all that a step holds, to see whether they fit."""

    def __init__(
        self,
        model: nn.Module,
        largest: int,
        shape: tuple[int, int, int],
        amp: str,
        device: torch.device,
        resident_bytes: int,
    ) -> None:
        """See `choose_micro_batch`."""
        self._model, self._shape, self._amp, self._device = model, shape, amp, device
        num_parameters = sum(parameter.numel() for parameter in model.parameters())
        image_bytes = largest * math.prod(shape) * 4
        self._step_bytes = BYTES_A_PARAMETER * num_parameters + COPIES_OF_IMAGES * image_bytes
        self._resident_bytes = resident_bytes

    def bytes_of(self, size: int) -> int | None:
        """The memory that a step of pieces of `size` samples takes; None where it does not fit."""
        model, device = self._model, self._device
        buffers = [buffer.clone() for buffer in model.buffers()]  # batch norm's statistics move
        model.train()
        torch.cuda.empty_cache()  # what a trial that failed has left
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_reserved(device)
        try:
            resident = torch.empty(self._resident_bytes, dtype=torch.uint8, device=device)
            reserve = torch.empty(self._step_bytes, dtype=torch.uint8, device=device)
            images = torch.randn(size, *self._shape, device=device)
            with cudnn_autotuning(True):
                with autocast(self._amp, device):
                    logits, _ = split_output(
                        model(images.contiguous(memory_format=torch.channels_last))
                    )
                logits.float().square().mean().backward()
            torch.cuda.synchronize(device)  # before training: the answer is needed now
            del resident, reserve, images, logits
        except RuntimeError as error:
            if not is_out_of_gpu_memory(error):
                raise
            return None
        finally:
            model.zero_grad(set_to_none=True)
            for buffer, value in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(value)
            torch.cuda.empty_cache()
        peak = torch.cuda.max_memory_reserved(device)
        return peak - before - self._resident_bytes
