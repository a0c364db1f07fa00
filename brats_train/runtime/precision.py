"""Mixed precision: what the hardware has, and the context to compute in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from brats_cache.common.errors import BratsError

__all__ = ["autocast", "choose_amp", "set_up", "tuned_convolutions"]


def choose_amp(wanted: str, device: torch.device) -> str:
    """ "bf16", "fp16" or "off" for a wanted "auto", "bf16", "fp16" or "off".

    auto takes bf16 where the hardware computes in it (emulated bf16 is slower than float32), else
    fp16 with loss scaling on CUDA, else nothing. Raises `BratsError` for fp16 on a CPU.
    """
    if wanted == "fp16" and device.type == "cpu":
        raise BratsError("--amp fp16: the CPU computes in float32 or bf16; use auto, bf16 or off.")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if _cpu_has_bf16() else "off"


def autocast(amp: str, device: torch.device) -> AbstractContextManager[None]:
    """The context of a forward pass under `amp`, as `choose_amp` gives it."""
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=amp != "off")


def set_up(device: torch.device, *, deterministic: bool) -> None:
    """Process-wide settings: TF32 on CUDA, and where asked for equal results for equal runs.
    Deterministic CUDA matrix products need a setting from before CUDA's first use."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True


@contextmanager
def tuned_convolutions(enabled: bool) -> Iterator[None]:
    """A context in which cuDNN tries out which of its algorithms is the fastest, unless equal
    results are asked for. That takes seconds for each new shape, hence not for an epoch's last and
    smaller batch, validation and prediction. Forward and backward pass belong into one."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = enabled and not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        cudnn.benchmark = before


def _cpu_has_bf16() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags
