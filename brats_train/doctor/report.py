"""`brats doctor`: checks of this machine, each failed one with a suggested fix.

No check takes longer than a few seconds. An exception in a check becomes its result.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path

from brats_cache.common.memory_limits import available_memory, memory_limit, total_memory
from brats_cache.common.process import usable_cores
from brats_cache.common.text import human_bytes
from brats_train.doctor.check import Check

__all__ = ["LIBRARIES", "run_checks"]

# The distributions that pyproject.toml requires.
LIBRARIES = (
    *("click", "connected-components-3d", "edt", "h5py", "huggingface-hub", "isal", "kornia"),
    *("matplotlib", "nibabel", "numpy", "opencv-python-headless", "pydantic", "rich"),
    *("safetensors", "scipy", "segmentation-models-pytorch", "timm", "torch"),
    *("torchvision", "xxhash"),
)
MIN_MEMORY = 4 << 30
MIN_SHARED_MEMORY = 1 << 30


def run_checks() -> list[Check]:
    """Runs all checks, in the order in which they are printed."""
    groups = {
        "system": _system,
        "libraries": _libraries,
        "memory": _memory,
        "disks": _disks,
        "torch": _torch,
    }
    checks: list[Check] = []
    for name, check_group in groups.items():
        try:
            checks += check_group()
        except Exception as error:  # what a broken installation raises cannot be foreseen
            checks.append(
                Check(
                    name=name,
                    state="failure" if name == "torch" else "warning",
                    found=f"cannot be checked ({type(error).__name__}: {error})",
                    fix="Make the environment anew: scripts/setup_env." if name == "torch" else "",
                )
            )
    return checks


def _system() -> list[Check]:
    is_new_enough = sys.version_info >= (3, 11)
    cores, threads = usable_cores(), os.environ.get("OMP_NUM_THREADS", "")
    is_limited = threads.isdigit() and int(threads) < cores
    found = f"{cores} usable of {os.cpu_count()}"
    return [
        Check(name="system", found=f"{platform.system()} {platform.release()}"),
        Check(
            name="python",
            state="fine" if is_new_enough else "failure",
            found=platform.python_version(),
            fix="" if is_new_enough else "Python 3.11 or newer is needed.",
        ),
        Check(
            name="cores",
            state="warning" if is_limited else "fine",
            found=f"{found}, OMP_NUM_THREADS={threads}" if threads else found,
            fix="Unset OMP_NUM_THREADS to compute with all cores." if is_limited else "",
        ),
    ]


def _libraries() -> list[Check]:
    versions, missing = [], []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    checks = [Check(name="libraries", found=", ".join(versions) or "none")]
    if missing:
        fix = "pip install -c constraints.txt -e . in the checkout."
        found = ", ".join(missing)
        checks.append(Check(name="missing", state="failure", found=found, fix=fix))
    return checks


def _memory() -> list[Check]:
    total, limit = total_memory(), memory_limit()
    found = f"{human_bytes(total)}, {human_bytes(available_memory())} available"
    if limit < total:
        found += f", this process may use {human_bytes(limit)}"
    is_small = limit < MIN_MEMORY
    shared = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    is_small_shared = shared < MIN_SHARED_MEMORY
    return [
        Check(
            name="memory",
            state="warning" if is_small else "fine",
            found=found,
            fix="Use a smaller --micro-batch and fewer --workers." if is_small else "",
        ),
        Check(
            name="/dev/shm",
            state="warning" if is_small_shared else "fine",
            found=human_bytes(shared),
            fix="Several GPUs want 1 GiB: docker run --shm-size=1g, or --ipc=host."
            if is_small_shared
            else "",
        ),
    ]


def _disks() -> list[Check]:
    from brats_train.doctor.disk import check_disk

    return [check_disk("data/", Path("data")), check_disk("runs/", Path("runs"))]


def _torch() -> list[Check]:
    from brats_train.doctor.torch import check_encoder_weights, check_torch

    return [*check_torch(), check_encoder_weights()]
