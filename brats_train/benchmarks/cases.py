"""What whole cases cost: building a cache of them, and segmenting them."""

from __future__ import annotations

import shlex
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from brats_cache.format.reader import open_cache
from brats_train.benchmarks.harness import (
    Contender,
    Report,
    phantom_scans,
    synchronize,
    take_turns,
    typed,
)
from brats_train.inference.case_sources import find_scans
from brats_train.inference.ensemble import load_ensemble
from brats_train.inference.predict import PredictionJob, predict
from brats_train.models.checkpoint import SegmenterSpec, pack
from brats_train.models.unet import ModelConfig, build_model
from brats_train.runtime.distributed import World
from brats_train.training.checkpoint_writer import Saver
from brats_train.training.setup import common_scheme

__all__ = ["bench_cache", "bench_predict"]

SHAPE = (240, 240, 155)


def bench_cache(*, num_cases: int, num_rounds: int, size: int) -> Report:
    """Cases a second of `brats build-cache` on synthetic cases of full size, plain and gzipped."""
    contenders = []
    with (
        phantom_scans(num_cases=num_cases, shape=SHAPE) as plain,
        phantom_scans(num_cases=num_cases, shape=SHAPE, gz=True) as zipped,
    ):
        for name, folder in {"from .nii": plain, "from .nii.gz": zipped}.items():

            def run(folder: Path = folder) -> int:
                _build(folder, size)
                return num_cases

            contenders.append(Contender(name=name, run=run))
        speeds = take_turns(contenders, num_rounds=num_rounds, device=torch.device("cpu"))
        cache = open_cache(plain / "cache.h5")
        slices_a_case = cache.shape[0] / num_cases
        source_bytes = sum(file.stat().st_size for file in plain.rglob("*.nii")) / num_cases
    return Report(
        what="cache",
        unit="cases",
        settings={"cases": num_cases, "size": size, "slices": "brain", "rounds": num_rounds},
        speeds=speeds,
        figures={
            "slices a case": slices_a_case,
            "source MiB a case": source_bytes / 2**20,
            **{
                f"{contender.name}: slices/s": speeds.median(contender.name) * slices_a_case
                for contender in contenders
            },
        },
    )


def bench_predict(
    world: World, *, num_cases: int, num_rounds: int, size: int, amp: str, tta: bool
) -> Report:
    """Cases a second of `brats predict` with an untrained model on synthetic cases of full size,
    and how many seconds of a case are the model's."""
    with phantom_scans(num_cases=num_cases, shape=SHAPE, gz=True) as folder:
        _build(folder, size)
        checkpoint = _untrained(folder)
        ensemble = load_ensemble([checkpoint], world.device, amp)
        clock = _ModelClock(ensemble.models[0], world.device)
        job = PredictionJob(
            findings=find_scans([folder / "scans"], ensemble.spec.preparation.modalities),
            out_dir=folder / "masks",
            tta=tta,
            overwrite=True,
        )
        in_model: list[float] = []

        def run() -> int:
            before = clock.seconds
            predict(job, ensemble, world, lambda done, total: None)
            in_model.append((clock.seconds - before) / num_cases)
            return num_cases

        contender = Contender(name="predict", run=run)
        speeds = take_turns([contender], num_rounds=num_rounds, device=world.device)
    seconds = 1 / speeds.median("predict")
    model_seconds = statistics.median(in_model[1:])  # the first round warms up
    return Report(
        what="predict",
        unit="cases",
        settings={
            "cases": num_cases,
            "size": size,
            "amp": ensemble.amp,
            "flips": tta,
            "rounds": num_rounds,
        },
        speeds=speeds,
        figures={
            "seconds a case": seconds,
            "of that in the model": model_seconds,
            "and in the rest": seconds - model_seconds,
        },
    )


class _ModelClock:
    """Adds up the seconds that a model's forward passes take, the device waited for."""

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


def _build(folder: Path, size: int) -> None:
    scans, cache = shlex.quote(str(folder / "scans")), shlex.quote(str(folder / "cache.h5"))
    typed(f"build-cache {scans} --out {cache} --size {size} --overwrite")


def _untrained(folder: Path) -> Path:
    """A checkpoint of the paper's network with random weights, for the cache in `folder`."""
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
    with Saver() as saver:
        saver.submit(path, pack(segmenter, build_model(config).state_dict()))
    return path
