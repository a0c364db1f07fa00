"""A training killed at random moments, again and again (--kills 20): it ends in the same weights.

With --ranks 2 the run has two processes under torchrun and all of them are killed together.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from brats_cache.synthetic.write_phantom import write_phantom
from brats_train.models import checkpoint
from tests.commands import LAUNCHER, children_of, run_brats

EPOCHS = 8
TRAINING = (
    *("--encoder-weights", "none", "--set", "model.encoder=resnet18", "--set", "rows=all"),
    *("--set", "ema=0.9", "--epochs", str(EPOCHS), "--batch-size", "25", "--lr", "1e-3"),
    *("--amp", "off", "--deterministic", "--save-minutes", "0.01"),
)


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak train_kills")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="Where to work.")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        _soak(Path(folder), options.kills, options.ranks, random.Random(options.seed))


def _soak(folder: Path, num_kills: int, num_ranks: int, rng: random.Random) -> None:
    scans, cache = folder / "scans", folder / "brats.h5"
    write_phantom(scans, num_cases=8, seed=3, shape=(64, 64, 24), workers=1)
    run_brats("build-cache", scans, "--out", cache, "--size", 64, "--workers", 1)
    new = ("train", "--cache", cache, *TRAINING)

    whole = folder / "whole" / "last.pt"
    process, started = _start(folder, num_ranks, *new, "--run-dir", "whole"), time.monotonic()
    while not whole.exists():
        assert process.poll() is None, "it failed by itself"
        time.sleep(0.05)
    start_seconds = time.monotonic() - started
    assert process.wait() == 0
    seconds, wanted = time.monotonic() - started, checkpoint.load(whole)

    hits = resumed = runs = 0
    while hits < num_kills:
        shutil.rmtree(folder / "parted", ignore_errors=True)
        runs += 1
        while True:
            again = (folder / "parted" / "last.pt").exists()
            resumed += again
            words = ("train", "--resume", "--save-minutes", "0.01") if again else new
            if (folder / "parted").exists() and not again:
                words = (*words, "--overwrite")
            process = _start(folder, num_ranks, *words, "--run-dir", "parted")
            if hits < num_kills:
                try:
                    process.wait(rng.uniform(0.8 * start_seconds, start_seconds + 6))
                except subprocess.TimeoutExpired:
                    for pid in [*children_of(process.pid), process.pid]:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    process.wait()
                    hits += 1
                    continue
            assert process.wait() == 0, "it failed by itself"
            break
        _assert_equal(wanted, checkpoint.load(folder / "parted" / "last.pt"))
    print(f"{hits} kills hit in {runs} runs, {resumed} starts went on, {num_ranks} ranks; ", end="")
    print(f"{seconds:.1f} s when left alone")


def _assert_equal(wanted: dict[str, Any], held: dict[str, Any]) -> None:
    for name, value in wanted["model"].items():
        assert torch.equal(value, held["model"][name]), f"another {name}"
    assert wanted["position"] == held["position"]


def _start(folder: Path, num_ranks: int, *words: object) -> subprocess.Popen[bytes]:
    start = [sys.executable]
    if num_ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    return subprocess.Popen(
        [*start, str(LAUNCHER), *map(str, words)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if num_ranks > 1 else None,  # torchrun's words on every kill
    )
