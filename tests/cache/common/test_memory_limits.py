"""The memory that is left, of the machine or of the control group, whichever is less."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_cache.common import memory_limits as memory

MEMINFO = "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    9000000 kB\n"


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a control group, and a machine of 16 GB of which 9 are available."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(memory, "_MEMORY_INFO", tmp_path / "meminfo")
    paths = (str(tmp_path / "memory.max"), str(tmp_path / "memory.current"), "inactive_file")
    monkeypatch.setattr(memory, "_GROUPS", (paths,))
    return tmp_path


def limit_to(group: Path, limit: str, used: int, cached: int) -> None:
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\n")


def test_without_a_control_group_it_is_the_machines(group: Path) -> None:
    assert memory.memory_limit() == memory.total_memory() == 16_000_000 << 10
    assert memory.available_memory() == 9_000_000 << 10
    limit_to(group, "max", 3, 2)
    assert memory.memory_limit() == 16_000_000 << 10
    assert memory.available_memory() == 9_000_000 << 10


def test_a_control_group_limits_it(group: Path) -> None:
    limit_to(group, "4000", 3000, 500)
    assert memory.memory_limit() == 4000
    assert memory.available_memory() == 1500
    limit_to(group, "4000", 5000, 0)
    assert memory.available_memory() == 0


def test_where_nothing_can_be_told_nothing_is_available(group: Path) -> None:
    (group / "meminfo").unlink()
    assert memory.memory_limit() == memory.available_memory() == 0


def test_this_machine_has_some() -> None:
    assert 0 < memory.available_memory() <= memory.memory_limit() <= memory.total_memory()
