"""Device name, library versions, age of this process, and the torchrun that started it."""

from __future__ import annotations

import os
import platform
import socket
import time
from pathlib import Path

import torch

from brats_cache import __version__

__all__ = ["device_name", "launcher_id", "process_age", "versions"]


def device_name(device: torch.device) -> str:
    """Names a device: "cpu", or the model of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


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
