"""A training killed at random moments, again and again (--kills 20): it ends in the same weights.

Of one process by default, which starts without imports (`tests.forked`), so that 200 kills take
half an hour of one core; with --ranks 2 of two under torchrun, all of which are killed together. A
kill follows a random save of the run by a random moment; a save takes longer than a step, so many
fall within one.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a fork must not find its threads

import argparse
import contextlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import brats_train.cli.train
import brats_train.training.trainer  # noqa: F401 - for the forks
from brats_cache.synthetic.write_phantom import write_phantom
from brats_train.models import checkpoint
from brats_train.models.content_digest import content_digest
from tests.commands import LAUNCHER, PATIENCE, children_of, run_brats
from tests.forked import ForkedBrats

SIDE = 32  # of a slice
MOMENT_SECONDS = 0.5  # after a save; a save or an epoch takes about as long
TRAINING = (
    *("--encoder-weights", "none", "--set", "model.encoder=resnet18", "--set", "rows=all"),
    *("--set", "ema=0.9", "--epochs", "6", "--batch-size", "25", "--lr", "1e-3"),
    *("--amp", "off", "--device", "cpu", "--deterministic", "--save-minutes", "0.001"),
)
Process = subprocess.Popen[bytes] | ForkedBrats


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak train_kills")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="Where to work.")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        _soak(Path(folder).resolve(), options.kills, options.ranks, random.Random(options.seed))


def _soak(folder: Path, num_kills: int, num_ranks: int, rng: random.Random) -> None:
    scans, cache, run = folder / "scans", folder / "brats.h5", folder / "parted"
    write_phantom(scans, num_cases=6, seed=3, shape=(SIDE, SIDE, 16), workers=1)
    run_brats("build-cache", scans, "--out", cache, "--size", SIDE, "--workers", 1)
    new = ("train", "--cache", cache, *TRAINING)
    whole = folder / "whole"
    process = _start(folder, num_ranks, *new, "--run-dir", whole.name)
    num_saves = _count_saves(process, whole, sys.maxsize)
    assert process.wait(PATIENCE) == 0, process.communicate(PATIENCE)[0]
    wanted, rows = _digests(whole), _rows(whole)

    hits = num_resumed = num_runs = 0
    while hits < num_kills:
        shutil.rmtree(run, ignore_errors=True)
        num_runs += 1
        code: int | None = None
        while code != 0:
            # A kill before config.json is written leaves a folder that holds no run yet.
            begun = (run / "config.json").exists()
            words = ("train", *TRAINING[-2:]) if begun else new
            num_resumed += (run / "last.pt").exists()
            process = _start(folder, num_ranks, *words, "--resume", "--run-dir", run.name)
            if hits < num_kills:
                _count_saves(process, run, rng.randint(0, num_saves // 2))
                time.sleep(rng.uniform(0, MOMENT_SECONDS))
                _kill(process)
            code = process.wait(PATIENCE)
            is_expected = code == 0 or (
                hits < num_kills and (num_ranks > 1 or code == -signal.SIGKILL)
            )
            assert is_expected, process.communicate(PATIENCE)[0]
            hits += code != 0
        assert _digests(run) == wanted, "another checkpoint"
        assert _rows(run) == rows, "another metrics.csv"
        # figures/curves.png is drawn once a training has lasted for a while.
        left = set(os.listdir(run)) - set(os.listdir(whole)) - {"figures"}
        assert not left, left
        print(f"{hits} kills hit in {num_runs} runs of {num_ranks} ranks, ", end="")
        print(f"{num_resumed} starts went on from a last.pt", flush=True)


def _count_saves(process: Process, run: Path, limit: int) -> int:
    """Waits for so many new versions of last.pt, or for the end; returns how many there were."""
    deadline, seen, before = time.monotonic() + PATIENCE, 0, _version(run)
    while seen < limit and process.poll() is None:
        assert time.monotonic() < deadline, f"{seen} saves in {PATIENCE} s"
        time.sleep(0.01)
        if before != (before := _version(run)):
            seen += 1
    return seen


def _version(run: Path) -> tuple[int, int]:
    try:
        status = (run / "last.pt").stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _kill(process: Process) -> None:
    for pid in [*children_of(process.pid), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _digests(run: Path) -> list[str]:
    """Digests of all tensors and values of the checkpoints but the time that training took."""
    contents = [checkpoint.load(run / name) for name in ("last.pt", "best.pt")]
    del contents[0]["position"]["seconds"]
    return [content_digest(content) for content in contents]


def _rows(run: Path) -> list[list[str]]:
    """metrics.csv without its last columns, which are times."""
    return [line.split(",")[:-3] for line in (run / "metrics.csv").read_text().splitlines()]


def _start(folder: Path, num_ranks: int, *words: object) -> Process:
    if num_ranks == 1:
        return ForkedBrats(*words, cwd=folder)
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    return subprocess.Popen(
        [sys.executable, *start, str(LAUNCHER), *map(str, words)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # torchrun's words on every kill
    )
