"""How much of a GPU's memory this process may take."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

__all__ = ["free_memory", "keep_to_free_memory"]

WSL_GPU = Path("/dev/dxg")
MARGIN = 256 << 20  # bytes left to the desktop, which takes some more now and then


def keep_to_free_memory(device: torch.device) -> None:
    """Under WSL2, has torch refuse for the rest of the process what does not fit the GPU's memory.

    Windows' driver would go on in the host's memory instead, many times slower. Elsewhere the
    driver itself refuses, and a limit could only be too low: when a run is started again, the
    process before it may not have given its memory back yet.

    Args:
        device: A CUDA device.
    """
    if not WSL_GPU.exists():
        return
    _load_libraries(device)
    free, total = torch.cuda.mem_get_info(device)
    fraction = (free + torch.cuda.memory_reserved(device) - MARGIN) / total
    allowed = torch.cuda.get_per_process_memory_fraction(device)
    torch.cuda.set_per_process_memory_fraction(max(0.0, min(fraction, allowed)), device)


def _load_libraries(device: torch.device) -> None:
    """Has CUDA's libraries loaded, which take memory that torch does not count."""
    pixels = torch.zeros(1, 1, 8, 8, device=device, requires_grad=True)
    nn.functional.conv2d(pixels, torch.ones(1, 1, 3, 3, device=device)).sum().backward()


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take; 0 on a CPU.

    What torch holds in reserve counts as taken; a limit that was set for the process counts too.
    """
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    allowed = int(total * torch.cuda.get_per_process_memory_fraction(device))
    return max(0, min(free, allowed - torch.cuda.memory_reserved(device)))
