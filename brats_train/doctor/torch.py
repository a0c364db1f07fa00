"""Checks of PyTorch: GPUs, mixed precision, distributed backends, compiler, encoder weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import torch.distributed as dist

from brats_cache.common.text import human_bytes
from brats_train.doctor.check import Check
from brats_train.runtime.environment import why_gpu_is_unused
from brats_train.runtime.precision import choose_amp

__all__ = ["check_encoder_weights", "check_torch"]

ENCODER = "resnet34"
HUB_TIMEOUT_SECONDS = 2
LITTLE_GPU_MEMORY = 7 << 30


def check_torch() -> list[Check]:
    """Checks version, GPUs (or why there is none), mixed precision, NCCL and the compiler."""
    cpu = torch.device("cpu")
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    checks = [Check(name="torch", found=f"{torch.__version__}, built with {built}")]
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    checks += [_gpu(index) for index in range(num_gpus)] or [_no_gpu()]
    device = torch.device("cuda") if num_gpus else cpu
    amp = choose_amp("auto", device)
    found = {"bf16": "bf16", "fp16": "fp16 with loss scaling", "off": "float32"}[amp]
    checks.append(Check(name="precision", found=f"{found} on the {device.type} (--amp auto)"))
    checks.append(_several_processes(num_gpus))
    checks.append(_compiler(num_gpus))
    return checks


def check_encoder_weights() -> Check:
    """Checks whether ImageNet weights are cached on this machine or can be downloaded."""
    # Both libraries take seconds to import; the checks above do not wait for them.
    import huggingface_hub as hub
    from segmentation_models_pytorch.encoders import encoders

    settings = encoders[ENCODER]["pretrained_settings"]["imagenet"]
    file = {**settings, "filename": "model.safetensors"}
    name = "weights"
    if isinstance(hub.try_to_load_from_cache(**file), str):
        return Check(name=name, found=f"ImageNet weights of {ENCODER} are on this machine")
    url = hub.hf_hub_url(**file)
    try:
        hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT_SECONDS)
    except Exception as error:  # the exceptions depend on the version of the hub's library
        return Check(
            name=name,
            state="warning",
            found=f"ImageNet weights of {ENCODER} are not on this machine, and the hub cannot be "
            f"reached ({type(error).__name__})",
            fix="--encoder-weights none, or a file fetched elsewhere: --encoder-weights PATH.",
        )
    return Check(name=name, found=f"ImageNet weights of {ENCODER} can be downloaded")


def _gpu(index: int) -> Check:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    driver = _driver_version()
    found = (
        f"{properties.name}, {human_bytes(free)} of {human_bytes(total)} free, compute capability "
        f"{properties.major}.{properties.minor}{f', driver {driver}' if driver else ''}"
    )
    name = f"gpu {index}"
    built_for = [int(arch.partition("_")[2].rstrip("af")) for arch in torch.cuda.get_arch_list()]
    if built_for and 10 * properties.major + properties.minor < min(built_for):
        fix = "This torch is not built for so old a GPU; install an older one, or --device cpu."
        return Check(name=name, state="warning", found=found, fix=fix)
    if free < LITTLE_GPU_MEMORY:
        fix = "--micro-batch auto may split the paper's batch; or end what else uses this GPU."
        return Check(name=name, state="warning", found=found, fix=fix)
    return Check(name=name, found=found)


def _no_gpu() -> Check:
    """Why there is no GPU: no device, no driver for it, or a torch that cannot use it."""
    fix = why_gpu_is_unused()
    if fix is None:
        return Check(
            name="gpu",
            state="warning",
            found="no NVIDIA GPU",
            fix="Training runs on the CPU: the paper's recipe takes hours instead of minutes.",
        )
    return Check(name="gpu", state="warning", found="a GPU that torch cannot use", fix=fix)


def _driver_version() -> str:
    """Version of the kernel module, such as 580.65.06; "" where it is unknown (WSL)."""
    path = Path("/sys/module/nvidia/version")
    return path.read_text().strip() if path.is_file() else ""


def _several_processes(num_gpus: int) -> Check:
    if not dist.is_available():
        fix = "This torch is built without torch.distributed; one process works."
        return Check(name="ranks", state="warning", found="one process only", fix=fix)
    if num_gpus > 1 and not dist.is_nccl_available():
        fix = "Several GPUs need NCCL, which this torch lacks."
        return Check(name="ranks", state="warning", found="gloo", fix=fix)
    if num_gpus and dist.is_nccl_available():
        version = ".".join(map(str, torch.cuda.nccl.version()))
        return Check(name="ranks", found=f"NCCL {version}, gloo")
    return Check(name="ranks", found="gloo")


def _compiler(num_gpus: int) -> Check:
    """Checks for what `--compile` needs: a C compiler, and Triton on a GPU."""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), "")
    if not compiler:
        fix = "--compile needs a C compiler: apt-get install gcc. All else works without."
        return Check(name="compile", state="warning", found="no C compiler", fix=fix)
    return Check(name="compile", found=f"{compiler}{', Triton' if num_gpus else ''}")
