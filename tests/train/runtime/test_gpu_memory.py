"""How much of a GPU a process takes, by what torch and the driver are made to say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from brats_train.runtime import gpu_memory
from brats_train.runtime.gpu_memory import free_memory, keep_to_free_memory

GPU = torch.device("cuda", 0)
GIB = 1 << 30


class Driver:
    """What a GPU of 8 GiB is said to hold."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, free: int, reserved: int) -> None:
        self.fraction = 1.0
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 8 * GIB))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
        monkeypatch.setattr(
            torch.cuda, "get_per_process_memory_fraction", lambda device: self.fraction
        )
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", self._limit)

    def _limit(self, fraction: float, device: torch.device) -> None:
        self.fraction = fraction


def test_under_wsl_a_process_keeps_to_what_is_free_less_a_margin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(monkeypatch, free=6 * GIB, reserved=GIB // 2)
    monkeypatch.setattr(gpu_memory, "WSL_GPU", tmp_path / "dxg")
    monkeypatch.setattr(gpu_memory, "_load_libraries", lambda device: None)
    keep_to_free_memory(GPU)
    assert driver.fraction == 1  # the driver refuses by itself
    (tmp_path / "dxg").touch()
    keep_to_free_memory(GPU)
    assert driver.fraction * 8 * GIB == 6.25 * GIB
    driver.fraction = 0.5  # a limit that was there
    keep_to_free_memory(GPU)
    assert driver.fraction == 0.5


@pytest.mark.parametrize(
    ("free", "reserved", "fraction", "expected"),
    [(6, 1, 1.0, 6), (6, 1, 0.5, 3), (1, 6, 1.0, 1), (2, 6, 0.5, 0)],
)
def test_free_memory_knows_the_limit_of_the_process(
    monkeypatch: pytest.MonkeyPatch, free: int, reserved: int, fraction: float, expected: int
) -> None:
    driver = Driver(monkeypatch, free=free * GIB, reserved=reserved * GIB)
    driver.fraction = fraction
    assert free_memory(GPU) == expected * GIB


def test_a_cpu_has_no_memory_of_its_own() -> None:
    assert free_memory(torch.device("cpu")) == 0
