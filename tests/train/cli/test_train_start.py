"""Where `brats train` begins: a new run, the middle of one, or one that saved nothing."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import brats_train.training.folds  # noqa: F401 - takes the trainer, which is replaced below
from brats_train.training.run_dir import RunDir
from brats_train.training.state import Finished, TrainJob
from tests.train.runs import call


@dataclass
class Started:
    """What the trainer was called with."""

    job: TrainJob
    run: RunDir
    is_resumed: bool


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Started]:
    """Every start of a training, of which none is carried out."""
    calls: list[Started] = []

    def train(
        job: TrainJob, world: Any, run: RunDir, *, resume: bool, log: Any, started: Any
    ) -> Finished:
        assert started is None  # the process's start
        calls.append(Started(job, run, resume))
        return Finished("all 1 epochs are done", 1, is_resumable=False, is_validated=not calls[1:])

    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/brats.h5").touch()  # is seen to be there, and not opened
    monkeypatch.setattr("brats_train.training.trainer.train", train)
    return calls


def write_config(run: RunDir, cache: Path, **recipe: Any) -> None:
    run.path.mkdir(parents=True)
    caches = [{"path": str(cache), "fingerprint": "0" * 16}]
    run.write_config({"recipe": {"lr": 0.25, **recipe}, "caches": caches, "fold": 2})


def test_resume_where_there_is_no_run_begins_one_and_says_so(
    started: list[Started], capsys: pytest.CaptureFixture[str]
) -> None:
    call("train", "--resume", "--run-dir", "queue/a", "--lr", 0.5, "--device", "cpu")
    (start,) = started
    assert not start.is_resumed
    assert start.run.path == Path("queue/a")
    assert start.job.recipe.lr == 0.5
    told = capsys.readouterr().out
    assert "queue/a: holds no run yet, so this is a new one." in told
    assert "Next: brats eval --split val --run-dir queue/a\n" in told
    call("train", "--resume", "--device", "cpu", code=1)
    assert "there is no such run. Train first" in capsys.readouterr().err
    Path("empty").mkdir()
    call("train", "--resume", "--run-dir", "empty", "--device", "cpu")
    told = capsys.readouterr().out
    assert "empty: holds no run yet, so this is a new one." in told
    assert "Next: brats predict SCANS --out masks --run-dir empty\n" in told  # nothing to score


def test_a_dry_run_describes_the_run_that_would_go_on(
    started: list[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[TrainJob] = []

    def describe(job: TrainJob, world: Any, log: Any, held: Any) -> None:
        assert held["fold"] == 2  # whatever is kept of the run, such as its micro-batch
        jobs.append(job)

    monkeypatch.setattr("brats_train.training.dry_run.describe_training", describe)
    write_config(RunDir(Path("r")), Path("data/brats.h5"))
    call("train", "--resume", "--run-dir", "r", "--dry-run", "--epochs", 7, "--device", "cpu")
    (job,) = jobs
    assert (job.recipe.lr, job.recipe.epochs, job.fold) == (0.25, 7, 2)
    assert job.cache_paths == (Path("data/brats.h5"),)
    assert started == []


def test_nproc_starts_torchrun_with_the_same_words(
    started: list[Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "--nproc", "3", "--cache", "data/brats.h5"]
    executed: list[tuple[list[str], dict[str, str]]] = []

    def execve(program: str, command: list[str], environment: dict[str, str]) -> None:
        executed.append((command, environment))
        sys.exit(0)

    monkeypatch.setattr(sys, "argv", ["brats", *words])
    monkeypatch.setattr(os, "execve", execve)
    call(*words)
    ((command, environment),) = executed
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert "--nproc-per-node=3" in command
    assert command[-len(words) :] == words
    assert int(environment["OMP_NUM_THREADS"]) >= 1
    assert started == []


def test_a_missing_cache_is_told_before_a_run_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    call("train", "--device", "cpu", code=1)
    said = capsys.readouterr()
    assert "data/brats.h5: no such file. Make it with brats build-cache" in said.err
    assert said.out == ""
    assert not Path("runs").exists()


def test_a_run_that_saved_nothing_starts_again_with_its_own_settings(
    started: list[Started], cache_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(Path("begun"))
    write_config(run, cache_path, epochs=3)
    call("train", "--resume", "--run", "begun", "--device", "cpu")
    assert "begun: ended before anything was saved" in capsys.readouterr().out
    run.last.touch()
    call("train", "--resume", "--run", "begun", "--device", "cpu")
    assert [start.is_resumed for start in started] == [False, True]
    for start in started:
        assert start.job.recipe.lr == 0.25
        assert start.job.recipe.epochs == 3
        assert start.job.fold == 2
        assert start.job.cache_paths == (cache_path,)


def test_a_run_in_use_is_refused(
    started: list[Started], cache_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir(Path("busy"))
    write_config(run, cache_path)
    with run.locked("brats train"):
        for words in (["--resume"], ["--overwrite"], []):
            call("train", *words, "--run", "busy", "--device", "cpu", code=1)
            assert "busy: in use by brats train, process" in capsys.readouterr().err
    call("train", "--run", "busy", "--device", "cpu", code=1)
    assert "holds a run already (config.json)" in capsys.readouterr().err
    assert not started
    assert json.loads(run.config.read_text())["fold"] == 2


@pytest.mark.parametrize(
    ("words", "value", "expected"),
    [
        ((), None, False),
        (("--compile",), None, True),
        (("--compile", "--epochs", 2), None, True),
        (("--compile", "reduce-overhead"), None, "reduce-overhead"),
        ((), "1", True),
        ((), "false", False),
        ((), "reduce-overhead", "reduce-overhead"),
    ],
)
def test_compile_is_a_flag_that_may_name_a_mode(
    started: list[Started],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[object, ...],
    value: str | None,
    expected: bool | str,
) -> None:
    if value is not None:
        monkeypatch.setenv("BRATS_TRAIN_COMPILE", value)
    call("train", "--run", "r", "--device", "cpu", *words)
    assert started[0].job.compile == expected


def test_a_resumed_run_compiles_as_before(
    started: list[Started], cache_path: Path, tmp_path: Path
) -> None:
    for name, mode in (("a", True), ("b", "reduce-overhead")):  # the first as in older versions
        run = RunDir(tmp_path / name)
        run.path.mkdir()
        caches = [{"path": str(cache_path), "fingerprint": "0" * 16}]
        config = {"recipe": {"lr": 0.25}, "caches": caches, "fold": None, "compile": mode}
        run.write_config(config)
        call("train", "--resume", "--run", name, "--device", "cpu")
        assert started[-1].job.compile == mode


def test_a_mode_of_the_compiler_that_is_none_is_wrong_usage(
    started: list[Started], capsys: pytest.CaptureFixture[str]
) -> None:
    call("train", "--compile", "fast", "--device", "cpu", code=2)
    assert "'fast' is not reduce-overhead" in capsys.readouterr().err
    assert not started


@pytest.mark.parametrize(
    "words",
    [
        ("--loss", "foo"),
        ("--lr", "-1"),
        ("--set", "lrr=3"),
        ("--set", "epochs"),
        ("--micro-batch", "foo"),
        ("--device", "foo"),
    ],
)
def test_a_value_that_no_run_could_have_is_wrong_usage(
    words: tuple[str, ...], started: list[Started], capsys: pytest.CaptureFixture[str]
) -> None:
    call("train", *(() if "--device" in words else ("--device", "cpu")), *words, code=2)
    assert not started
    text = capsys.readouterr().err
    assert "Error: " in text
    assert "Traceback" not in text


def test_no_minutes_are_an_answer(started: list[Started], tmp_path: Path) -> None:
    """--save-minutes 0 saves after every step, and is not the default of five minutes."""
    call("train", "--run-dir", "a", "--save-minutes", 0, "--device", "cpu")
    write_config(RunDir(Path("b")), tmp_path / "data/brats.h5")
    call("train", "--resume", "--run-dir", "b", "--save-minutes", 0, "--device", "cpu")
    call("train", "--run-dir", "c", "--device", "cpu")
    assert [start.job.save_minutes for start in started] == [0.0, 0.0, 5.0]
