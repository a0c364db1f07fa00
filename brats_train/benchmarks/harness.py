"""What the benchmarks share: timing, synthetic scans, and reports.

Throughput on a shared machine drifts by half within a minute. So the workloads of a benchmark run
in turn, one round each, and are compared by their ratios within a round. Reported are medians over
rounds.
"""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from brats_cache.api import build_cache
from brats_cache.common.process import usable_cores
from brats_cache.common.progress import show_progress
from brats_cache.format.reader import Cache
from brats_cache.synthetic.write_phantom import write_phantom
from brats_train.runtime.environment import device_name, versions

__all__ = [
    "BenchmarkReport",
    "Throughput",
    "Workload",
    "build_phantom_cache",
    "machine",
    "measure_in_turn",
    "phantom_scans",
    "synchronize",
]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One workload of a benchmark.

    Attributes:
        name: Its name in the report.
        run: Does one round of work and returns the amount, in the report's unit.
        prepare: Called before each round; not timed.
    """

    name: str
    run: Callable[[], int]
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Measured throughput.

    Attributes:
        by_name: Units per second of each workload, one value for each round.
    """

    by_name: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """Median over rounds."""
        return statistics.median(self.by_name[name])

    def best(self, name: str) -> float:
        """Fastest round, the one least disturbed by other programs."""
        return max(self.by_name[name])

    def ratio(self, name: str, other: str) -> float:
        """Median over rounds of the ratio of `name` to `other` within the round."""
        pairs = zip(self.by_name[name], self.by_name[other], strict=True)
        return statistics.median(one / two for one, two in pairs)


@dataclass(frozen=True, kw_only=True)
class BenchmarkReport:
    """The result of one benchmark.

    Attributes:
        name: Its name.
        unit: Unit of the throughput, "slices" or "cases", per second.
        settings: Plain values that define the work.
        throughput: What was measured.
        ratios: Pairs of workloads to compare.
        figures: Further measured values, by name.
    """

    name: str
    unit: str
    settings: Mapping[str, Any]
    throughput: Throughput
    ratios: Sequence[tuple[str, str]] = ()
    figures: Mapping[str, Any]

    def as_json(self, device: torch.device) -> dict[str, Any]:
        """Plain values with all rounds, for JSON."""
        return {
            "bench": self.name,
            "machine": machine(device),
            "settings": dict(self.settings),
            "unit": f"{self.unit}/s",
            "speeds": {name: self.throughput.median(name) for name in self.throughput.by_name},
            "best": {name: self.throughput.best(name) for name in self.throughput.by_name},
            "rounds": {name: list(values) for name, values in self.throughput.by_name.items()},
            "ratios": {f"{a} / {b}": self.throughput.ratio(a, b) for a, b in self.ratios},
            "figures": dict(self.figures),
        }

    def as_text(self, device: torch.device) -> str:
        """Medians, ratios and figures as aligned lines."""
        here = machine(device)
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = [
            f"{self.name}: {settings}",
            f"on {here['device']}, {here['threads']} threads, torch {here['torch']}",
            "",
        ]
        rows = [(name, self._format_rate(name)) for name in self.throughput.by_name]
        rows += [(f"{a} / {b}", f"{self.throughput.ratio(a, b):.3f}") for a, b in self.ratios]
        rows += [(name, _format(value)) for name, value in self.figures.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join([*lines, *(f"  {name:<{width}}  {value}" for name, value in rows)])

    def _format_rate(self, name: str) -> str:
        median, best = self.throughput.median(name), self.throughput.best(name)
        return f"{median:,.4g} {self.unit}/s, best {best:,.4g}"


def measure_in_turn(
    workloads: Sequence[Workload],
    *,
    num_rounds: int,
    device: torch.device,
    warm_up: bool = True,
    on_round: Callable[[Throughput], None] = lambda throughput: None,
) -> Throughput:
    """Times workloads in turn, one round each, after one round to warm up.

    Args:
        workloads: What to time.
        num_rounds: Timed rounds.
        device: Synchronised before the clock is read.
        warm_up: False leaves that round out, for whole commands, which start anew every time.
        on_round: Called after each timed round with all that was measured so far.
    """
    rates: dict[str, list[float]] = {workload.name: [] for workload in workloads}
    for number in range(0 if warm_up else 1, num_rounds + 1):
        for workload in workloads:
            workload.prepare()
            synchronize(device)
            started = time.perf_counter()
            amount = workload.run()
            synchronize(device)
            if number:
                rates[workload.name].append(amount / (time.perf_counter() - started))
        if number:
            on_round(_throughput(rates))
    return _throughput(rates)


def _throughput(rates: Mapping[str, Sequence[float]]) -> Throughput:
    return Throughput(by_name={name: tuple(values) for name, values in rates.items()})


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished its work, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, Any]:
    """Describes the machine: device, CPU, cores, threads and versions."""
    return {
        "device": _cpu_name() if device.type == "cpu" else device_name(device),
        "cpu": _cpu_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        **versions(),
    }


@contextlib.contextmanager
def phantom_scans(
    *, num_cases: int, shape: tuple[int, int, int], gz: bool = False
) -> Iterator[Path]:
    """Makes a temporary folder with synthetic cases in its subfolder `scans`.

    Args:
        num_cases: Cases with masks.
        shape: X, Y, Z in voxels of 1 mm.
        gz: Whether to gzip the files.

    Yields:
        The folder, which is removed afterwards.
    """
    with TemporaryDirectory(prefix="brats-bench-") as name:
        folder = Path(name)
        with show_progress("Making", "cases") as progress:
            write_phantom(
                folder / "scans", num_cases=num_cases, shape=shape, gz=gz, progress=progress
            )
        yield folder


def build_phantom_cache(folder: Path, **options: Any) -> Cache:
    """Builds `cache.h5` from the `scans` in a folder, with messages on standard error.

    Args:
        folder: As `phantom_scans` yields it.
        **options: Of `brats_cache.build_cache`.
    """
    with contextlib.redirect_stdout(sys.stderr):  # standard output is the report's
        return build_cache(folder / "scans", folder / "cache.h5", **options)


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine() or os.uname().machine


def _format(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
