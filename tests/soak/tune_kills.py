"""A study killed at random moments (--kills 10): every finished trial is kept, and it ends whole.

With --processes 2 two processes share the study and one of them is killed each time. Every other
kill takes the trial's process as well; otherwise it must follow its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from brats_cache.synthetic.write_phantom import write_phantom
from brats_train.training.run_dir import RunDir
from brats_train.tuning.storage import open_storage
from brats_train.tuning.study import best_of, finished_trials
from tests.commands import LAUNCHER, run_brats

EPOCHS = 2
SPACE = 'optimizer = ["adamw", "adam", "sgd"]\nlr = { low = 1e-4, high = 1e-2, log = true }\n'
TRAINING = (
    *("--encoder-weights", "none", "--set", "model.encoder=resnet18", "--set", "rows=tumor"),
    *("--epochs", str(EPOCHS), "--batch-size", "8", "--amp", "off", "--device", "cpu"),
    *("--save-minutes", "0"),
)


def soak(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="scripts/soak tune_kills")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="Where to work.")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        _soak(Path(folder), options.kills, options.processes, random.Random(options.seed))


def _soak(folder: Path, num_kills: int, num_processes: int, rng: random.Random) -> None:
    scans, cache, study = folder / "scans", folder / "brats.h5", folder / "study"
    write_phantom(scans, num_cases=4, seed=3, shape=(32, 32, 12), workers=1)
    run_brats("build-cache", scans, "--out", cache, "--size", 32, "--workers", 1)
    (folder / "space.toml").write_text(SPACE)
    words = ("tune", "--cache", cache, "--study", study, "--space", folder / "space.toml")
    started = time.monotonic()
    run_brats(*words, *TRAINING, "--trials", 1, timeout=1800)
    seconds = time.monotonic() - started

    hits, wanted, before = 0, 3, _finished(study)
    processes: list[subprocess.Popen[bytes]] = []
    while hits < num_kills:
        while len(processes) < num_processes:
            processes.append(_start(*words, *TRAINING, "--trials", wanted))
        time.sleep(rng.uniform(0.2, 1.0) * seconds)
        victim = processes.pop(rng.randrange(len(processes)))
        if victim.poll() is None:
            trial_process = _child_of(victim.pid)
            victim.kill()
            if hits % 2 and trial_process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(trial_process, signal.SIGKILL)
            hits += 1
        else:
            assert victim.returncode == 0, f"exit code {victim.returncode}"
            wanted += 2  # it was faster than the kills
        victim.wait()
        after = _finished(study)
        lost = [number for number, trial in before.items() if _shown(after, number) != trial.value]
        assert not lost, f"trials {lost} were finished and are lost"
        before = after
    for process in processes:
        assert process.wait() == 0
    run_brats(*words, *TRAINING, "--trials", wanted, timeout=1800)

    finished = _finished(study)
    assert before.keys() <= finished.keys()
    assert len(finished) >= wanted
    best = best_of(list(finished.values()))
    assert best is not None
    assert tomllib.loads((study / "best.toml").read_text())["optimizer"] == best.params["optimizer"]
    num_taken = 0
    for number, trial in finished.items():
        run = RunDir(study / trial.user_attrs.get("run", f"trials/{number:04}"))
        num_taken += "run" in trial.user_attrs
        assert trial.state != TrialState.FAIL, f"{run.path}: {trial.user_attrs.get('reason')}"
        if trial.state == TrialState.COMPLETE:  # others were pruned
            rows = run.read_metrics()
            assert len(rows) == EPOCHS, f"{run.path} is not whole"
            assert rows[trial.user_attrs["best_epoch"] - 1]["val_iou"] == trial.value
    print(
        f"{hits} kills hit, {num_processes} at once; {len(finished)} trials are finished, ", end=""
    )
    print(f"{num_taken} of them went on after a kill; {seconds:.1f} s for one left alone")


def _finished(folder: Path) -> dict[int, FrozenTrial]:
    """The finished trials of a study, by number."""
    study = optuna.load_study(study_name=folder.name, storage=open_storage(None, folder))
    return {trial.number: trial for trial in finished_trials(study.trials)}


def _shown(trials: dict[int, FrozenTrial], number: int) -> float | None:
    return trials[number].value if number in trials else None


def _child_of(pid: int) -> int | None:
    """The first process that process `pid` has started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                return int(path.parent.name)
    return None


def _start(*words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(LAUNCHER), *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
