"""Device name and library versions, for config.json and benchmarks."""

from __future__ import annotations

import platform

import torch

from brats_cache import __version__

__all__ = ["device_name", "versions"]


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
