"""The ways of doing one thing, ours and the peers', measured in turn."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, TypeVar

import torch

from brats_cache.common.process import keep_freed_memory, usable_cores
from brats_train.benchmarks.harness import Throughput, Workload, machine, measure_in_turn
from peers.job import Job

__all__ = ["LIMIT", "OURS", "Benchmark", "Way", "measure", "prepare_process", "wanted"]

OURS, LIMIT = "brats", "limit"
LIBRARIES = (
    *("monai", "torchio", "nnunetv2", "surface-distance", "nibabel", "h5py", "scipy"),
    *("numpy", "opencv-python-headless", "SimpleITK", "segmentation-models-pytorch"),
)
CPU = torch.device("cpu")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way of doing what a benchmark measures.

    Attributes:
        name: Its name in tables and figures.
        peer: "brats", "limit" for what nothing can be faster than, or one of `arguments.PEERS`.
        note: What it does and does not do.
        run: Does one round and returns the amount, in the benchmark's unit.
        compared: Name of the way of brats that it is compared with.
        prepare: Called before each round; not timed.
    """

    name: str
    peer: str
    note: str
    run: Callable[[], int]
    compared: str = OURS
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a benchmark is, beside its ways.

    Attributes:
        title: A line that says what is measured.
        unit: "case", "slice" or "region".
        shown: Whether its table and figure show seconds for a unit, or units a second.
        settings: Plain values that define the work.
        columns: Further values by column and way, one for each round, filled while the ways run;
            their medians are shown.
        remarks: Sentences about the whole.
    """

    title: str
    unit: str
    shown: Literal["seconds", "rate"]
    settings: Mapping[str, Any]
    columns: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def prepare_process(job: Job) -> None:
    """Sets up this process, in which batches are made, alike for all ways."""
    # Every tensor that a worker process shares is an open file.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    keep_freed_memory()  # as brats train does
    torch.set_num_threads(min(job.workers, usable_cores()))  # more would wait for each other


def wanted(job: Job, makers: Mapping[str, Callable[[], Sequence[T]]]) -> list[T]:
    """Makes the ways of brats, of the limits, and of the peers that are to be measured.

    Args:
        job: What to measure.
        makers: By peer.
    """
    asked = {OURS, LIMIT, *job.peers}
    return [way for peer, make in makers.items() if peer in asked for way in make()]


def measure(
    job: Job,
    benchmark: Benchmark,
    ways: Sequence[Way],
    save: Callable[[dict[str, Any]], None],
    *,
    warm_up: bool,
) -> None:
    """Measures the ways in turn, and hands all that is known to `save` after every round."""
    started = os.getloadavg()[0]

    def on_round(throughput: Throughput) -> None:
        save(_as_json(job, benchmark, ways, throughput, started))

    measure_in_turn(
        [Workload(name=way.name, run=way.run, prepare=way.prepare) for way in ways],
        num_rounds=job.rounds,
        device=CPU,
        warm_up=warm_up,
        on_round=on_round,
    )


def _as_json(
    job: Job, benchmark: Benchmark, ways: Sequence[Way], throughput: Throughput, load: float
) -> dict[str, Any]:
    return {
        "title": benchmark.title,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(CPU) | {"memory_gb": _memory_gb(), "kernel": platform.release()},
        "load_average_before": load,
        "versions": _versions(),
        "settings": {"cases": job.about, "workers": job.workers, **benchmark.settings},
        "unit": benchmark.unit,
        "shown": benchmark.shown,
        "ways": {
            way.name: {
                "peer": way.peer,
                "note": way.note,
                "compared": way.compared,
                "rounds": list(throughput.by_name[way.name]),
                **{
                    name: statistics.median(values[way.name])
                    for name, values in benchmark.columns.items()
                },
            }
            for way in ways
        },
        "columns": list(benchmark.columns),
        "remarks": benchmark.remarks,
    }


def _memory_gb() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
