"""The process of a trial: followed, ended, and read when it failed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from brats_train.training.run_dir import RunDir
from brats_train.tuning import trial as module
from brats_train.tuning.trial import LOG, failure_of, run_trial
from tests.train.tuning.studies import row_of

# What stands for `brats train`, and loads no torch: the lines of metrics.csv, and the end that is
# asked for.
TRAINS = """
import os, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(int(number)))
for line in {lines!r}:
    with open({path!r}, "a") as file:
        file.write(line)
print("variables", sorted(name for name in os.environ if name.startswith("BRATS_")), flush=True)
{ending}
"""
WAITS = "while not asked: time.sleep(0.01)\nsys.exit(130)"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.new(tmp_path / "0000", "paper")


@pytest.fixture
def stand_in(run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Puts a program in the place of `brats train`."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.05)

    def put(ending: str, epochs: int = 3) -> None:
        whole = RunDir(tmp_path / "whole")
        whole.path.mkdir()
        for epoch in range(1, 1 + epochs):
            whole.append_metrics(row_of(epoch, 0.1 * epoch))
        lines = whole.metrics.read_text().splitlines(keepends=True) if epochs else []
        code = TRAINS.format(lines=lines, path=str(run.metrics), ending=ending)
        (tmp_path / "stand_in.py").write_text(code)
        monkeypatch.setattr(module, "CHILD", (sys.executable, str(tmp_path / "stand_in.py")))

    return put


def follow(run: RunDir, **changes: Callable) -> module.TrialEnd:
    read, write = os.pipe()
    hooks = {"is_to_prune": lambda row: False, "is_interrupted": lambda: False, **changes}
    try:
        return run_trial(["train"], run, inherited=write, **hooks)
    finally:
        os.close(read)
        os.close(write)


def test_every_epoch_is_reported_once_and_in_order(
    run: RunDir, stand_in: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRATS_TRAIN_LR", "1")
    stand_in("")
    seen: list[float] = []
    end = follow(run, is_to_prune=lambda row: seen.append(row["epoch"]))
    assert (end.kind, seen) == ("complete", [1, 2, 3])
    assert [row["epoch"] for row in end.rows] == [1, 2, 3]
    # Variables for `brats train` would override the recipe of the trial.
    assert "variables []" in (run.path / LOG).read_text()


def test_a_pruned_trial_is_asked_to_end(run: RunDir, stand_in: Callable) -> None:
    stand_in(WAITS)
    end = follow(run, is_to_prune=lambda row: row["epoch"] == 2)
    assert end.kind == "pruned"
    assert [row["epoch"] for row in end.rows] == [1, 2]


def test_an_interrupted_trial_is_asked_to_save_once(run: RunDir, stand_in: Callable) -> None:
    stand_in("while not asked: time.sleep(0.01)\ntime.sleep(0.5)\nprint(asked)\nsys.exit(130)")
    end = follow(run, is_interrupted=lambda: len(run.read_metrics()) == 3)
    assert end.kind == "interrupted"
    assert "[15]" in (run.path / LOG).read_text()


def test_a_trial_that_somebody_else_interrupts_can_go_on(run: RunDir, stand_in: Callable) -> None:
    stand_in("sys.exit(130)")
    assert follow(run).kind == "interrupted"


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("sys.exit('Error: out of memory. Choose a smaller --batch-size.')", "out of memory"),
        ("raise RuntimeError('what is that')", "RuntimeError: what is that"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL (out of memory?)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
    ],
)
def test_a_failed_trial_tells_why(run: RunDir, stand_in: Callable, ending: str, words: str) -> None:
    stand_in(ending)
    end = follow(run)
    assert end.kind == "failed"
    assert words in end.reason


def test_a_trial_of_no_epoch_has_failed(run: RunDir, stand_in: Callable) -> None:
    stand_in("", epochs=0)
    assert follow(run).kind == "failed"


def test_a_trial_that_does_not_end_is_killed(
    run: RunDir, stand_in: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVING_SECONDS", 0.3)
    stand_in("while True: time.sleep(1)")
    assert follow(run, is_to_prune=lambda row: True).kind == "pruned"


def test_the_last_message_of_a_log_is_the_reason(tmp_path: Path) -> None:
    log = tmp_path / LOG
    log.write_text("Run: x\nError: first\nepoch 1\nError: the mask of c\n  is wrong\x1b[31m\n")
    assert failure_of(1, log) == "Error: the mask of c is wrong\\x1b[31m"
    log.write_text("")
    assert failure_of(3, log) == "exit code 3"
    assert failure_of(3, tmp_path / "none") == "exit code 3"
