"""What a run needs before its first step: data that can be learnt from, a model, a micro-batch."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from brats_cache import __version__
from brats_cache.errors import BratsError
from brats_cache.store import Cache

from .averaging import MovingAverage
from .checkpoint import load_segmenter
from .distributed import World
from .model import ModelConfig, build_model, load_encoder_weights
from .precision import autocast, tuned_convolutions
from .recipes import Recipe
from .rows import RowSet

__all__ = [
    "average_of",
    "check_data",
    "choose_micro_batch",
    "common_scheme",
    "device_name",
    "first_model",
    "is_out_of_memory",
    "versions",
]

BYTES_A_PARAMETER = 12  # two moments and a gradient bucket, which the first step will allocate
COPIES_OF_IMAGES = 8  # float32 images that augmentation holds at once, at most


def check_data(
    caches: Sequence[Cache],
    train_rows: RowSet,
    val_rows: RowSet,
    recipe: Recipe,
    say: Callable[[str], None],
) -> None:
    """Raises `BratsError` where the rows cannot be learnt from."""
    size = caches[0].shape[-1]
    if size % 32:
        raise BratsError(
            f"{caches[0].path}: slices of {size} pixels, but the U-Net halves them five times. "
            "Build the cache with a --size that is a multiple of 32."
        )
    if not len(train_rows):
        names = ", ".join(str(cache.path) for cache in caches)
        raise BratsError(f"{names}: no training rows (rows={recipe.rows}). Look with brats info.")
    if not len(val_rows):
        say("Warning: no validation rows; the best checkpoint is chosen by the training rows.")
    for cache in caches:
        for index in np.flatnonzero(cache.cases["has_mask"]):
            known = cache.scheme(int(index)).regions
            if missing := [region for region in recipe.regions if region not in known]:
                raise BratsError(
                    f"{cache.path}: the mask of {cache.cases['id'][index].decode()} (scheme "
                    f"{cache.scheme(int(index)).name}) does not know {', '.join(missing)}. "
                    "Train with --target wt."
                )


def first_model(
    config: ModelConfig, encoder_weights: str, init_from: Path | None
) -> tuple[nn.Module, str]:
    """A new model and where its weights came from: another run's model, or encoder weights."""
    if init_from is None:
        model = build_model(config)
        return model, load_encoder_weights(model, encoder_weights)
    segmenter, model, _ = load_segmenter(init_from)
    if segmenter.model != config:
        raise BratsError(
            f"--init-from {init_from}: its model is {segmenter.model}, this run's {config}."
        )
    return model, f"{init_from} ({segmenter.weights_from})"


def average_of(model: nn.Module, decay: float) -> MovingAverage | None:
    """A moving average of the weights; None for a decay of 0."""
    return MovingAverage(model, decay) if decay else None


def common_scheme(caches: Sequence[Cache]) -> str:
    """The label scheme of the first case that has a mask."""
    for cache in caches:
        for index in np.flatnonzero(cache.cases["has_mask"]):
            return cache.scheme(int(index)).name
    raise BratsError(f"{caches[0].path}: no case has a mask, so there is nothing to learn.")


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
    return world.smallest(size)


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
        with tuned_convolutions(True):
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


def device_name(device: torch.device) -> str:
    """ "cpu", or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """Of this program, Python and torch."""
    return {
        "brats": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
