"""What the benchmarks share: fair timing, a cache to time on, and how results are shown.

Speeds on a shared machine drift by half within a minute. So contenders take turns, a round each,
and what is compared are the ratios within a round; the medians over rounds are what is reported.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from brats_cache.common.process import usable_cores
from brats_train.runtime.environment import device_name, versions

__all__ = [
    "Contender",
    "Report",
    "Speeds",
    "machine",
    "phantom_scans",
    "synchronize",
    "take_turns",
    "typed",
]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """`run` does a round of work and returns how much it was, in the report's unit. What `prepare`
    does before each round is not timed."""

    name: str
    run: Callable[[], int]
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Units a second of each contender, a value a round."""

    by_name: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        return statistics.median(self.by_name[name])

    def best(self, name: str) -> float:
        """The fastest round: what is left of the speed where other programs slow down the rest."""
        return max(self.by_name[name])

    def ratio(self, name: str, other: str) -> float:
        """The median over rounds of `name`'s speed in `other`'s."""
        pairs = zip(self.by_name[name], self.by_name[other], strict=True)
        return statistics.median(one / two for one, two in pairs)


@dataclass(frozen=True, kw_only=True)
class Report:
    """One benchmark's outcome.

    what      its name
    unit      of the speeds, "slices" or "cases"
    settings  plain values that decide the work
    figures   further plain values that were measured, by name
    ratios    pairs of contenders worth comparing
    """

    what: str
    unit: str
    settings: Mapping[str, Any]
    speeds: Speeds
    ratios: Sequence[tuple[str, str]] = ()
    figures: Mapping[str, Any]

    def as_json(self, device: torch.device) -> dict[str, Any]:
        """Plain values, with all rounds, for a file or another program."""
        return {
            "bench": self.what,
            "machine": machine(device),
            "settings": dict(self.settings),
            "unit": f"{self.unit}/s",
            "speeds": {name: self.speeds.median(name) for name in self.speeds.by_name},
            "best": {name: self.speeds.best(name) for name in self.speeds.by_name},
            "rounds": {name: list(values) for name, values in self.speeds.by_name.items()},
            "ratios": {f"{a} / {b}": self.speeds.ratio(a, b) for a, b in self.ratios},
            "figures": dict(self.figures),
        }

    def as_text(self, device: torch.device) -> str:
        """The same for people: medians, ratios, figures."""
        here = machine(device)
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = [
            f"{self.what}: {settings}",
            f"on {here['device']}, {here['threads']} threads, torch {here['torch']}",
            "",
        ]
        rows = [(name, self._speed(name)) for name in self.speeds.by_name]
        rows += [(f"{a} / {b}", f"{self.speeds.ratio(a, b):.3f}") for a, b in self.ratios]
        rows += [(name, _shown(value)) for name, value in self.figures.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join([*lines, *(f"  {name:<{width}}  {value}" for name, value in rows)])

    def _speed(self, name: str) -> str:
        median, best = self.speeds.median(name), self.speeds.best(name)
        return f"{median:,.4g} {self.unit}/s, best {best:,.4g}"


def take_turns(contenders: Sequence[Contender], *, num_rounds: int, device: torch.device) -> Speeds:
    """Runs the contenders in turn, once to warm up and then `num_rounds` times."""
    speeds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(num_rounds + 1):
        for contender in contenders:
            contender.prepare()
            synchronize(device)
            started = time.perf_counter()
            amount = contender.run()
            synchronize(device)
            if number:
                speeds[contender.name].append(amount / (time.perf_counter() - started))
    return Speeds(by_name={name: tuple(values) for name, values in speeds.items()})


def synchronize(device: torch.device) -> None:
    """Waits until the device has done what it was given, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure was measured on, in general words."""
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
    """A temporary folder with synthetic cases in its subfolder `scans`, and room for results."""
    with TemporaryDirectory(prefix="brats-bench-") as name:
        folder = Path(name)
        size = "x".join(map(str, shape))
        kind = "--gz" if gz else "--no-gz"
        scans = shlex.quote(str(folder / "scans"))
        typed(f"phantom {scans} --cases {num_cases} --test-cases 0 --shape {size} {kind}")
        yield folder


def typed(words: str) -> None:
    """Carries out `brats WORDS`, its words on standard error: standard output is the report's."""
    from brats_train.cli.main import cli

    with contextlib.redirect_stdout(sys.stderr):
        cli.main(shlex.split(words), prog_name="brats", standalone_mode=False)


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine() or os.uname().machine


def _shown(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
