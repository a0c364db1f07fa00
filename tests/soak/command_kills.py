"""Killed, paused and started twice: eval, report, predict and link (--kills 10 of each).

After every kill what was published is the old whole or the new whole, and the command typed again
makes the bytes of one that was left alone. A command that is paused (SIGSTOP) and goes on ends
likewise. Of two at once at least one succeeds, the other may be refused in one message.
"""

from __future__ import annotations

import argparse
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

import h5py

from brats_cache.synthetic.write_phantom import write_phantom
from tests.commands import LAUNCHER, run_brats

TRAINING = (
    *("--encoder-weights", "none", "--set", "model.encoder=resnet18", "--set", "rows=tumor"),
    *("--epochs", "1", "--batch-size", "25", "--lr", "1e-3", "--amp", "off", "--device", "cpu"),
)
# What differs between two equal runs: times of writing.
VARYING = ("report.html",)
Words = tuple[object, ...]


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak command_kills")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="Where to work.")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        _soak(Path(folder), options.kills, random.Random(options.seed))


def _soak(folder: Path, num_kills: int, rng: random.Random) -> None:
    scans, run = folder / "scans", folder / "run"
    write_phantom(scans, num_cases=8, num_test_cases=2, seed=3, shape=(64, 64, 24), workers=1)
    for shard in (1, 2):
        out = folder / f"part-{shard}.h5"
        run_brats("build-cache", scans, "--out", out, "--size", 64, "--shard", f"{shard}/2")
    caches = ("--cache", folder / "part-1.h5", "--cache", folder / "part-2.h5")
    run_brats("train", *caches, "--run", run, *TRAINING)
    masks, link = folder / "masks", folder / "all.h5"
    parts = (folder / "part-1.h5", folder / "part-2.h5")
    commands: dict[str, tuple[Words, Words, list[Path]]] = {
        "eval": (
            ("eval", "--run", run, "--save-masks", "--device", "cpu"),
            (),
            [run / "eval" / "val"],
        ),
        "report": (("report", "--run", run, "--device", "cpu"), (), [run / "figures"]),
        "predict": (
            ("predict", scans, "--run", run, "--out", masks, "--device", "cpu"),
            ("--resume",),
            [masks],
        ),
        "link": (("link", *parts, "--out", link), ("--overwrite",), [link]),
    }
    for name, (words, again, outputs) in commands.items():
        _remove(outputs)
        started = time.monotonic()
        run_brats(*words)
        seconds, wanted = time.monotonic() - started, _content(outputs)
        hits = _kill(words, again, outputs, wanted, num_kills, seconds, rng)
        _pause(words, again, outputs, wanted, seconds, rng)
        refused = _twice(words, again, outputs, wanted)
        print(f"{name}: {hits} kills hit, {refused} of two at once refused; {seconds:.1f} s alone")


def _kill(
    words: Words,
    again: Words,
    outputs: list[Path],
    wanted: dict[str, bytes],
    num_kills: int,
    seconds: float,
    rng: random.Random,
) -> int:
    """Kills the command at random moments; returns how many kills hit."""
    hits = 0
    for number in range(3 * num_kills):
        if hits == num_kills:
            break
        if number % 2:  # every other time there is nothing yet
            _remove(outputs)
        process = _start(*words, *again)
        try:
            process.wait(rng.uniform(0.3 * seconds, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            hits += 1
        process.wait()
        for name, content in _content(outputs).items():
            assert content == wanted[name], f"{name} is neither the old nor the new"
        run_brats(*words, *again)
        assert _content(outputs) == wanted, "another result after a kill"
    return hits


def _pause(
    words: Words,
    again: Words,
    outputs: list[Path],
    wanted: dict[str, bytes],
    seconds: float,
    rng: random.Random,
) -> None:
    _remove(outputs)
    process = _start(*words, *again)
    time.sleep(rng.uniform(0.3, 0.8) * seconds)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    process.send_signal(signal.SIGCONT)
    assert process.wait() == 0, "it failed after a pause"
    assert _content(outputs) == wanted, "another result after a pause"


def _twice(words: Words, again: Words, outputs: list[Path], wanted: dict[str, bytes]) -> int:
    """Starts two at once; returns how many were refused."""
    _remove(outputs)
    both = [_start(*words, *again, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate()[1].decode() for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, errors
    assert set(codes) <= {0, 1}, codes
    assert not any("Traceback" in text for text in errors), errors
    assert _content(outputs) == wanted, "another result of two at once"
    return codes.count(1)


def _start(*words: object, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(LAUNCHER), *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "2"},  # as `run_brats`: sums depend on it
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )


def _content(outputs: Sequence[Path]) -> dict[str, bytes]:
    """The published files; partials and locks are none."""
    files: list[Path] = []
    for output in outputs:
        files += [path for path in output.rglob("*") if path.is_file()] if output.is_dir() else []
        files += [output] if output.is_file() else []
    return {
        str(path): _shown(path) if path.suffix == ".h5" else path.read_bytes()
        for path in files
        if not any(part.startswith(".") for part in path.parts) and path.name not in VARYING
    }


def _shown(link: Path) -> bytes:
    """The rows that a link shows; HDF5 writes the time of its making into the file."""
    with h5py.File(link) as file:
        return b"".join(file[name][()].tobytes() for name in ("images", "masks"))


def _remove(outputs: Sequence[Path]) -> None:
    for output in outputs:
        if output.is_dir():
            shutil.rmtree(output)
        else:
            output.unlink(missing_ok=True)
