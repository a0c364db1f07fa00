"""Device name, a GPU that torch cannot use, versions, age of this process, and its torchrun."""

from __future__ import annotations

import os
import platform
import socket
import time
from pathlib import Path

import torch

from brats_cache import __version__

__all__ = ["device_name", "launcher_id", "process_age", "versions", "why_gpu_is_unused"]

GPU_DEVICES = Path("/dev")
WSL_DRIVER = Path("/usr/lib/wsl/lib/libcuda.so.1")


def device_name(device: torch.device) -> str:
    """Names a device: "cpu", or the model of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def why_gpu_is_unused() -> str | None:
    """Says what to do about an NVIDIA GPU that torch cannot use; None where there is no GPU.

    Only to be asked where `torch.cuda.is_available()` is false.
    """
    is_wsl = (GPU_DEVICES / "dxg").exists() and WSL_DRIVER.exists()
    if not is_wsl and not any(GPU_DEVICES.glob("nvidia[0-9]*")):
        return None
    if not torch.version.cuda:
        return "This torch is built for CPUs; install one with CUDA."
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES is {visible!r}; unset it."
    return f"Update the driver for CUDA {torch.version.cuda}; nvidia-smi shows which it is for."


def versions() -> dict[str, str]:
    """The versions of this program, Python and torch, by name."""
    return {
        "brats": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def process_age() -> float:
    """Seconds since this process was started, imports included."""
    ticks = _start_ticks("self") / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks)


def launcher_id() -> str | None:
    """Identifies the torchrun process that started this one; None where there is none.

    The run id of torchrun is not enough: without --rdzv-id it is the same every time.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    parent = os.getppid()
    return f"{socket.gethostname()}:{parent}:{_start_ticks(str(parent))}"


def _start_ticks(pid: str) -> int:
    """Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
