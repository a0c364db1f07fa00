"""Mixed precision, TF32, determinism and cuDNN autotuning."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch

from brats_cache.common.errors import BratsError

__all__ = ["autocast", "choose_amp", "configure_torch", "cudnn_autotuning"]


def choose_amp(wanted: str, device: torch.device) -> str:
    """Chooses the number format of forward passes.

    Args:
        wanted: "bf16", "fp16" or "off" as it stands; "auto" takes bf16 where the hardware computes
            in it (emulated bf16 is slower than float32), else fp16 on CUDA, else "off".
        device: Where the model computes.

    Returns:
        "bf16", "fp16" (which needs loss scaling) or "off" (float32).

    Raises:
        BratsError: fp16 on a CPU.
    """
    if wanted == "fp16" and device.type == "cpu":
        raise BratsError("--amp fp16: the CPU computes in float32 or bf16; use auto, bf16 or off.")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if _cpu_has_bf16() else "off"


def autocast(amp: str, device: torch.device) -> AbstractContextManager[None]:
    """The autocast context of a forward pass; `amp` is what `choose_amp` returns."""
    dtype = torch.float16 if amp == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=amp != "off")


def configure_torch(device: torch.device, *, deterministic: bool) -> None:
    """Sets torch's process-wide switches: TF32 on CUDA, and deterministic algorithms if asked for.

    Call it before CUDA is first used: deterministic matrix products need an environment variable
    that is read then.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True


@contextmanager
def cudnn_autotuning(enabled: bool) -> Iterator[None]:
    """A context in which cuDNN times its algorithms and takes the fastest (cudnn.benchmark).

    Off under deterministic algorithms. It takes seconds for each new shape, so it is not used for
    the smaller last batch of an epoch, validation and prediction. Forward and backward pass must
    run in the same context.
    """
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
