"""The process of a trial: started, followed by its metrics.csv, and ended where it is pruned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from brats_cache.common.errors import BratsError, printable
from brats_cache.common.process import module_environment
from brats_train.training.run_dir import RunDir

__all__ = ["LOG", "TrialEnd", "failure_of", "run_trial"]

LOG = "log.txt"
POLL_SECONDS = 0.5
SAVING_SECONDS = 120.0  # until a trial that was asked to end is killed
CHILD = (sys.executable, "-m", "brats_train.tuning.child")  # and its parent, and words
_INTERRUPTED = 130  # exit code of `brats train` that saved its state
_LOG_BYTES = 20_000  # at its end, in which the reason of a failure stands
_REASON_LENGTH = 500
Row = Mapping[str, float]


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended.

    Attributes:
        kind: "complete", "pruned", "failed", or "interrupted", which can be resumed.
        rows: Its epochs, rows of metrics.csv.
        reason: Why it failed, in one line.
    """

    kind: Literal["complete", "pruned", "failed", "interrupted"]
    rows: Sequence[Row]
    reason: str = ""


def run_trial(
    words: Sequence[str],
    run: RunDir,
    *,
    inherited: int,
    is_to_prune: Callable[[Row], bool],
    is_interrupted: Callable[[], bool],
) -> TrialEnd:
    """Trains in a process of its own, so that it may crash or run out of memory.

    Args:
        words: Of `brats`, such as "train".
        run: The run directory that they name, which exists; the output goes to `LOG` in it.
        inherited: A descriptor that the process keeps open.
        is_to_prune: Called with each new epoch; True ends the trial.
        is_interrupted: Called now and then; True ends the trial, which keeps its state.
    """
    num_seen = 0
    with _started(words, run.path / LOG, inherited) as process:
        while True:
            code = _wait(process, POLL_SECONDS)
            rows = run.read_metrics()
            for row in rows[num_seen:]:
                num_seen += 1
                if is_to_prune(row) and code is None:
                    _end(process)
                    return TrialEnd("pruned", rows[:num_seen])
            if code is None and is_interrupted():
                code = _end(process)
                if code == 0:  # it was done just then
                    return TrialEnd("complete", run.read_metrics())
                return TrialEnd("interrupted", rows)
            if code is not None:
                break
    if code == _INTERRUPTED:
        return TrialEnd("interrupted", rows)
    if code or not rows:
        return TrialEnd("failed", rows, failure_of(code, run.path / LOG))
    return TrialEnd("complete", rows)


def failure_of(code: int, log: Path) -> str:
    """Why a trial failed, in one line: its own message, else its last line or the signal.

    Args:
        code: Its exit code, minus the signal that ended it.
        log: Its output.
    """
    if code < 0:
        name = signal.Signals(-code).name
        memory = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"ended by {name}{memory}"
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    starts = [number for number, line in enumerate(lines) if line.startswith("Error")]
    said = lines[starts[-1] :] if starts else lines[-1:]
    return printable(" ".join(" ".join(said).split()))[:_REASON_LENGTH] or f"exit code {code}"


@contextmanager
def _started(words: Sequence[str], log: Path, inherited: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is interrupted when this context or this process ends."""
    environment = {
        name: value
        for name, value in module_environment().items()
        if not name.startswith("BRATS_TRAIN_")  # they would change what the trial's recipe says
    }
    try:
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [*CHILD, str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(inherited,),
                process_group=0,  # a Ctrl-C is for the parent, which passes it on once
            )
    except OSError as error:
        raise BratsError(f"{printable(log)}: cannot be written ({error.strerror}).") from error
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Asks a process to save its state and end; returns its exit code."""
    if process.poll() is None:
        process.terminate()
        if _wait(process, SAVING_SECONDS) is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code of a process, None where it has not ended in so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
