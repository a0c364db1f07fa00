"""The demo calls the commands that a person would type, and prints what to type next."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

import click
import pytest

import brats_train.training.folds  # noqa: F401 - takes the trainer, which is replaced below
from brats_train.cli import demo
from brats_train.cli.main import cli
from brats_train.training.state import Finished
from tests.train.runs import call


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that the demo has run; only the scans are made."""
    words: list[str] = []

    def run(command: str) -> None:
        words.append(command)
        if command.startswith("phantom"):
            folder = Path(shlex.split(command)[1]) / "BraTS2020_ValidationData" / "Case_1"
            folder.mkdir(parents=True)
            (folder / "Case_1_flair.nii").touch()

    monkeypatch.setattr(demo, "_run", run)
    return words


def test_every_command_and_the_next_one_can_be_typed(
    typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "with a space"
    call("demo", "--out", out)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Next: "))
    _, *following = shlex.split(line.removeprefix("Next: "))
    commands = [*map(shlex.split, typed), following]
    names = [name for name, *_ in commands]
    assert names == ["phantom", "build-cache", "train", "eval", "predict", "report", "view"]
    for name, *words in commands:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        command.make_context(name, list(words))  # raises for words that it does not know


def test_training_has_its_minutes_whatever_the_scans_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process has made scans and cache before, and scripts/demo the environment before it."""
    began: list[float] = []

    def train(*_: object, started: float, **__: object) -> Finished:
        began.append(started)
        return Finished("all 1 epochs are done", 1, is_resumable=False)

    monkeypatch.setattr("brats_train.training.trainer.train", train)
    cache, run = tmp_path / "brats.h5", tmp_path / "run"
    cache.touch()
    before = time.monotonic()
    demo._run(f"train --cache {cache} --run {run} --max-minutes 2 --device cpu")
    assert before <= began[0] <= time.monotonic()


def test_variables_of_its_commands_do_not_change_what_the_demo_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(cli, "main", lambda *_, **__: seen.append(dict(os.environ)))
    monkeypatch.setenv("BRATS_TRAIN_NPROC", "2")
    monkeypatch.setenv("BRATS_VENV", "venv")
    demo._run("train")
    assert "BRATS_TRAIN_NPROC" not in seen[0]
    assert seen[0]["BRATS_VENV"] == "venv"
    assert os.environ["BRATS_TRAIN_NPROC"] == "2"


def test_the_minutes_that_are_shown_are_those_that_were_asked_for(
    typed: list[str], tmp_path: Path
) -> None:
    call("demo", "--out", tmp_path / "d", "--minutes", 2)
    (words,) = (shlex.split(command) for command in typed if command.startswith("train "))
    assert words[words.index("--max-minutes") + 1] == "2"


@pytest.mark.parametrize(
    ("on_path", "started_as", "expected"),
    [
        (True, "/somewhere/bin/brats", "brats"),
        (False, "brats", "./brats"),
        (False, "__main__.py", "{python} -m brats_train"),
    ],
)
def test_the_program_is_named_so_that_it_is_found(
    on_path: bool,
    started_as: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name, mode in (("brats", 0o755), ("__main__.py", 0o644)):
        (folder / name).touch(mode)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [started_as, "demo"])
    monkeypatch.setattr(demo.shutil, "which", lambda name: "/bin/brats" if on_path else None)
    assert demo._program() == expected.format(folder=folder, python=shlex.quote(sys.executable))


def test_a_folder_that_no_demo_made_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mine.txt", "README.txt"):  # a demo's mark has this name, and another content
        (tmp_path / name).write_text("mine")
        call("demo", "--out", tmp_path, code=1)
        assert "no earlier demo" in capsys.readouterr().err
        assert (tmp_path / name).read_text() == "mine"
