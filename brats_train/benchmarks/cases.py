"""Benchmarks of whole cases: building a cache of them, and segmenting them."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from torch import nn

from brats_cache.format.reader import open_cache
from brats_train.benchmarks.harness import (
    BenchmarkReport,
    Workload,
    build_phantom_cache,
    measure_in_turn,
    phantom_scans,
    synchronize,
)
from brats_train.inference.case_sources import find_scans
from brats_train.inference.ensemble import Ensemble, load_ensemble
from brats_train.inference.predict import PredictionJob, predict
from brats_train.models.checkpoint import SegmenterSpec, pack
from brats_train.models.description import Description
from brats_train.models.network import ModelConfig, build_model
from brats_train.models.onnx_file import has_onnx, make_onnx
from brats_train.models.sources import load_models
from brats_train.runtime.distributed import World
from brats_train.runtime.precision import choose_amp
from brats_train.training.checkpoint_writer import CheckpointWriter
from brats_train.training.setup import common_scheme

__all__ = ["bench_cache", "bench_predict", "save_untrained_model"]

SHAPE = (240, 240, 155)
TORCH, ONNX = "predict", "predict, onnxruntime"


def bench_cache(*, num_cases: int, num_rounds: int, size: int) -> BenchmarkReport:
    """Measures `brats build-cache` on synthetic cases of 240 x 240 x 155, plain and gzipped.

    Args:
        num_cases: Cases of each kind.
        num_rounds: Timed rounds.
        size: Side of a slice in pixels.

    Returns:
        Throughput in cases per second.
    """
    workloads = []
    with (
        phantom_scans(num_cases=num_cases, shape=SHAPE) as plain,
        phantom_scans(num_cases=num_cases, shape=SHAPE, gz=True) as zipped,
    ):
        for name, folder in {"from .nii": plain, "from .nii.gz": zipped}.items():

            def run(folder: Path = folder) -> int:
                build_phantom_cache(folder, size=size, overwrite=True)
                return num_cases

            workloads.append(Workload(name=name, run=run))
        throughput = measure_in_turn(workloads, num_rounds=num_rounds, device=torch.device("cpu"))
        cache = open_cache(plain / "cache.h5")
        slices_a_case = cache.shape[0] / num_cases
        source_bytes = sum(file.stat().st_size for file in plain.rglob("*.nii")) / num_cases
    return BenchmarkReport(
        name="cache",
        unit="cases",
        settings={"cases": num_cases, "size": size, "slices": "brain", "rounds": num_rounds},
        throughput=throughput,
        figures={
            "slices a case": slices_a_case,
            "source MiB a case": source_bytes / 2**20,
            **{
                f"{workload.name}: slices/s": throughput.median(workload.name) * slices_a_case
                for workload in workloads
            },
        },
    )


def bench_predict(
    world: World, *, num_cases: int, num_rounds: int, size: int, amp: str, tta: bool
) -> BenchmarkReport:
    """Measures `brats predict` with an untrained model on synthetic cases of 240 x 240 x 155.

    On a CPU with the packages of the extra [onnx], also with the same model as an ONNX file.

    Args:
        world: This process.
        num_cases: Cases to segment in a round.
        num_rounds: Timed rounds.
        size: Side of a slice in pixels.
        amp: See `brats_train.runtime.precision.choose_amp`.
        tta: Average over flips.

    Returns:
        Throughput in cases per second, and seconds of a case inside and outside the model.
    """
    with phantom_scans(num_cases=num_cases, shape=SHAPE, gz=True) as folder:
        build_phantom_cache(folder, size=size)
        sources = {TORCH: save_untrained_model(folder)}
        if world.device.type == "cpu" and has_onnx():
            sources[ONNX] = _save_as_onnx(sources[TORCH])
        workloads, in_model = [], dict[str, list[float]]()
        for name, source in sources.items():
            ensemble = load_ensemble([source], world.device, amp).overruled(tta, None)
            clock = _ModelClock(ensemble.models[0], world.device)
            job = PredictionJob(
                findings=find_scans([folder / "scans"], ensemble.spec),
                out_dir=folder / "masks",
                overwrite=True,
            )
            seconds_of_rounds = in_model[name] = []

            def run(
                job: PredictionJob = job,
                ensemble: Ensemble = ensemble,
                clock: _ModelClock = clock,
                seconds_of_rounds: list[float] = seconds_of_rounds,
            ) -> int:
                before = clock.seconds
                predict(job, ensemble, world, lambda done, total: None)
                seconds_of_rounds.append((clock.seconds - before) / num_cases)
                return num_cases

            workloads.append(Workload(name=name, run=run))
        throughput = measure_in_turn(workloads, num_rounds=num_rounds, device=world.device)
    seconds = 1 / throughput.median(TORCH)
    # The first round warms up.
    model_seconds = {name: statistics.median(values[1:]) for name, values in in_model.items()}
    figures = {
        "seconds a case": seconds,
        "of that in the model": model_seconds[TORCH],
        "and in the rest": seconds - model_seconds[TORCH],
    }
    if ONNX in model_seconds:
        figures["in the model, by onnxruntime"] = model_seconds[ONNX]
    return BenchmarkReport(
        name="predict",
        unit="cases",
        settings={
            "cases": num_cases,
            "size": size,
            "amp": choose_amp(amp, world.device),
            "flips": tta,
            "rounds": num_rounds,
        },
        throughput=throughput,
        ratios=((ONNX, TORCH),) if ONNX in sources else (),
        figures=figures,
    )


class _ModelClock:
    """Adds up the seconds of a model's forward passes, device synchronised.

    Attributes:
        seconds: The sum.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.seconds = 0.0
        self._device, self._started = device, 0.0
        model.register_forward_pre_hook(self._start)
        model.register_forward_hook(self._stop)

    def _start(self, *_: object) -> None:
        synchronize(self._device)
        self._started = time.perf_counter()

    def _stop(self, *_: object) -> None:
        synchronize(self._device)
        self.seconds += time.perf_counter() - self._started


def save_untrained_model(folder: Path) -> Path:
    """Writes a checkpoint of the paper's network with random weights, for the cache in `folder`."""
    cache = open_cache(folder / "cache.h5")
    config = ModelConfig(in_channels=cache.shape[1], classes=1)
    segmenter = SegmenterSpec(
        model=config,
        regions=("wt",),
        preparation=cache.preparation,
        label_scheme=common_scheme([cache]),
        weights_from="none (random initialisation)",
    )
    path = folder / "untrained.pt"
    with CheckpointWriter() as saver:
        saver.submit(path, pack(segmenter, build_model(config).state_dict()))
    return path


def _save_as_onnx(checkpoint: Path) -> Path:
    """Writes the model of a checkpoint as an ONNX file beside it."""
    models = load_models(checkpoint)
    path = checkpoint.with_suffix(".onnx")
    path.write_bytes(make_onnx(models, Description.of(models, {})))
    return path
