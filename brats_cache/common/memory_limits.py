"""How much memory this process may use, and how much of it is free."""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_memory", "memory_limit", "total_memory"]

_MEMORY_INFO = Path("/proc/meminfo")
# Of control groups version 2, then 1: the limit and what is in use of it.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def total_memory() -> int:
    """Returns the memory of the machine in bytes, 0 where it cannot be told."""
    return _memory_info("MemTotal")


def memory_limit() -> int:
    """Returns the bytes that this process may use: the limit of its control group (a container, a
    job of a cluster), or the memory of the machine."""
    limit, _ = _group()
    return min(limit or total_memory(), total_memory())


def available_memory() -> int:
    """Returns the bytes that can be taken without swapping, of what this process may use."""
    limit, used = _group()
    available = _memory_info("MemAvailable")
    return max(0, min(available, limit - used)) if limit else available


def _memory_info(name: str) -> int:
    try:
        lines = _MEMORY_INFO.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)


def _group() -> tuple[int, int]:
    """Limit and use of the control group, in bytes, without files that could be dropped; 0 and 0
    where there is no limit."""
    for limit_path, use_path, cached in _GROUPS:
        try:
            limit = Path(limit_path).read_text().strip()
            if not limit.isdigit():
                return 0, 0
            stat = Path(limit_path).with_name("memory.stat").read_text().splitlines()
            dropped = sum(int(line.split()[1]) for line in stat if line.startswith(f"{cached} "))
            return int(limit), int(Path(use_path).read_text()) - dropped
        except OSError:
            continue
    return 0, 0
